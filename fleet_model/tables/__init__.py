"""Texts with labels in tables: CSV, JSON lines, Parquet, folders that `datasets` has saved."""
