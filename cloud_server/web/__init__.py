"""HTTP routes of the server beside Flower's own."""
