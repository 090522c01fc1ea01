"""Differential privacy of robots: noise in what is learned, and an account of what it protects."""
