"""A larger model labels the frames that no person has; `edge-agent label --teacher`.

    settings -> wanted.py      what the fleet learns
    bundle   -> teacher.py     a model that speaks the fleet's words, calibrated on held-out frames
             -> lesson.py      asks it about every frame, once
             -> record.py      what it said, on disk; examples/taught.py reads it

Scores are trusted as those of pseudo-labels are, by the same code. What a person says counts more.
"""
