"""What robots have told of their features."""
