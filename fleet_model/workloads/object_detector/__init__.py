"""Say where in a camera frame things of a few classes are.

detector.py           what data mean: NumPy and OpenCV alone
letterbox.py          a frame in a square, and boxes back in the frame's own pixels
keras_model.py        what computes, in Keras: maps, loss, and boxes from maps
average_precision.py  how good boxes are: COCO's measures
matching.py           which boxes are right
details.py            what is told beside the measures: each class, and curves
imported/             detectors of other tools, which robots run and nobody trains
"""

from fleet_model.workloads.object_detector.detector import ObjectDetector

__all__ = ["ObjectDetector"]
