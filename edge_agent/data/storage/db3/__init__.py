"""rosbag2 files in SQLite, whole or damaged."""
