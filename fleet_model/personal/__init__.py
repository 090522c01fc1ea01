"""What one robot adds to the model that all share; it never leaves the robot.

choice.py   which of it runs an installed version, beside the bundle, and what was measured
shares.py   the robot's own label shares, added to the logits
tensors.py  the robot's own tensors, over the shared ones of a version
"""
