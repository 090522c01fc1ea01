"""The robot's own bounded store of examples, filled from a folder where new bags appear."""
