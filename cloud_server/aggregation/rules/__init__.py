"""The aggregation rules: one published rule in each file."""
