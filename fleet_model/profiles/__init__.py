"""What a client says of its records in sum, both directions side by side: see profile.py."""
