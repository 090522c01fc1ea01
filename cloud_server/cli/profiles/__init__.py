"""`cloud-server profiles`."""
