"""The file of another tool, from what an operator has to what robots run.

labels.py      the file's classes and the fleet's labels
engine_file.py what the file takes and gives, and what that means
checks.py      whether it answers pictures as it should
bundle.py      the version that is published
"""
