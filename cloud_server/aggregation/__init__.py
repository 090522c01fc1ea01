"""Aggregation rules as pure NumPy: no Flower, no network, no disk."""
