"""What clients say of their records in sum: asked for, kept by version, fused.

store.py    one file a robot and version
reply.py    how the round loop treats what robots answer
fusing.py   one profile of many, and how two sources differ
values.py   one profile as JSON
"""
