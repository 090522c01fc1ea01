"""Labels in files: folders, YOLO, COCO, TFDS directories, tables, label topics."""
