"""Files that name pictures and say what is on them: CSV, Pascal VOC, CreateML."""
