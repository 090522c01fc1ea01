"""Answer about a picture: low-rank adapters of a model of LLaVA's layout.

vision_language.py  what data mean: NumPy, OpenCV, and the library `tokenizers`
pixels.py           a picture as the vision tower takes it
layout.py           what the model's files say of pictures
torch_model.py      what computes, in PyTorch: tower, projector, language model and its adapters
"""

from fleet_model.workloads.vision_language.vision_language import VisionLanguage

__all__ = ["VisionLanguage"]
