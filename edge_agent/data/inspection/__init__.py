"""edge-agent inspect: what is in a bag, in numbers and as a picture."""
