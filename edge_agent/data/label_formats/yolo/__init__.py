"""YOLO directories, read and written."""
