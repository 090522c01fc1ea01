"""Keep the frames that matter as bags in the agent's spool. Nothing in here talks to ROS."""
