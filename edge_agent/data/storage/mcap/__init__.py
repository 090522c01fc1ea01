"""MCAP files, whole or damaged."""
