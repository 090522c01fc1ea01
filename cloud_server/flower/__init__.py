"""The embedded SuperLink: Flower's tables, links and run state."""
