"""One file with all that a server directory needs to live on another machine."""
