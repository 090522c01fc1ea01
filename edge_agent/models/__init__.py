"""Published models on the robot: install, switch, predict."""
