"""Say which of a few classes a camera frame shows.

classifier.py        what data mean: NumPy and OpenCV alone
calibration.py       pictures for int8 engines, where nothing of a robot may be looked at
keras_model.py       what computes, in Keras
networks.py          the backbones of keras_model.py
imagenet_weights.py  initial weights of one of them, from an installed package
"""

from fleet_model.workloads.image_classifier.classifier import ImageClassifier

__all__ = ["ImageClassifier"]
