"""Signed models: keys, roles, and the metadata that robots verify."""
