"""What camera_node plays and how. Knows no ROS."""
