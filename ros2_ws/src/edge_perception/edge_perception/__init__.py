"""ROS nodes that run, feed and follow a model of the fleet."""
