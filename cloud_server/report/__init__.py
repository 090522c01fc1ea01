"""One HTML page on what a fleet has learned, from files alone: no network, script or other file."""
