"""The process that opens models and asks them: the one with the port does neither."""
