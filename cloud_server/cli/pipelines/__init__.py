"""`cloud-server pipeline`."""
