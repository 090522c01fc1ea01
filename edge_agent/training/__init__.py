"""Local training on the robot: trainers, their features, the child process that runs them."""
