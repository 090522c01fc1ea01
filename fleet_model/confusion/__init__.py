"""Answers against truths: the counts, and a picture of them."""
