"""Camera frames from bags, live topics, folders."""
