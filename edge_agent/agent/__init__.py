"""The service: the loop that polls, trains, installs and reports."""
