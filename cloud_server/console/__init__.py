"""The fleet in a browser: pages for the operator, on the server's own port."""
