"""What goes over the network between robots and server."""
