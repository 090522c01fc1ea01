"""Robots that are Kubernetes clusters of their own: manifests to all, and what became of them."""
