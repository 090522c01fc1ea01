"""What camera_node plays and how."""
