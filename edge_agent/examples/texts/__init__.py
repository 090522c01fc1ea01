"""Examples of texts, from tables on this machine."""
