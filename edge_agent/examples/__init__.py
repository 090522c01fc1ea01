"""Labelled examples: the store, the held-out part, the spool of new recordings."""
