"""A page on which a person labels the frames that this robot has kept; `edge-agent label`.

    frames.py -> scoring.py, views.py -> queue.py -> desk.py -> server.py -> a browser
                                          answers.py <-'

Frames and labels stay on this robot. The labels are a data set in state/labels, which training
reads as any other. In place of a person another model may label them: see teacher/.
"""
