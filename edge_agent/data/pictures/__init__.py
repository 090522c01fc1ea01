"""What the bytes of one picture mean: raw samples and image files, read and written."""
