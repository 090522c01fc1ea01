"""COCO directories, read and written."""
