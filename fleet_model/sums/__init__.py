"""What a robot tells of its features for heads in closed form: counts, means, a scatter."""
