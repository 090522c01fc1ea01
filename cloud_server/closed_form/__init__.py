"""Heads in closed form from the sums of robots. NumPy only: no network, no disk."""
