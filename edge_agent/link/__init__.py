"""What goes over the network to the server: polling, downloads, Flower messages."""
