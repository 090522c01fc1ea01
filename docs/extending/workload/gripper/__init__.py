"""How hard a gripper must press, and whether the thing slips, from touch and pose.

A workload of a package of its own: two inputs, two targets, no classes, no camera frames.
"""
