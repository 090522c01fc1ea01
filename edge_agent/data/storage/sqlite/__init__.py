"""Read SQLite pages without SQLite, for bags that it refuses."""
