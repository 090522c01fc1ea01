"""What this robot has of its own, and whether it runs with the shared model.

tensors.py     the tensors that it trains and keeps, outside the models
candidates.py  engines with and without what is its own, on the same examples
measuring.py   which of them is better, as pure functions
chooser.py     when that is asked, and where the answer is kept
"""
