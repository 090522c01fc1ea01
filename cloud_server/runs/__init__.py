"""Runs of several rounds, and their schedule."""
