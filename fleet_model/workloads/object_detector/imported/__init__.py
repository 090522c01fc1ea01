"""A detector of another tool, as robots of this fleet run it.

detector.py    what data mean: the fleet's own detector with another input
reading.py     how the file is given a picture, and which of its tensors say what
fitted.py      a frame in the input, and boxes back in the frame's own pixels
layouts/       what the outputs mean, one class for each way to write them
candidates.py  the few of all boxes that are an answer
stage.py       the file as a stage of an engine
"""

from fleet_model.workloads.object_detector.imported.detector import ImportedDetector

__all__ = ["ImportedDetector"]
