"""ROS 1 bags, whole or damaged."""
