"""Bags and data sets: frames, labels, extraction, inspection. Imports nothing of the agent."""
