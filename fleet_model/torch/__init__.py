"""The PyTorch half of workloads: what a torch backend and a torch trainer share.

model.py     the seam: a workload's module, its scopes, its loss
tensors.py   a module's tensors as they travel
"""
