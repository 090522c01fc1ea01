"""One file per framework that can train."""
