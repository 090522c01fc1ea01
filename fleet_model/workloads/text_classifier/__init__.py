"""Say which of a few classes a text belongs to.

classifier.py    what data mean: NumPy, and the library `tokenizers`
tokens.py        a text as numbers, by the tokenizer's file that travels with the model
sentences.py     texts that exports are checked with
stage.py         an engine's file, by ONNX Runtime
torch_model.py   what computes, in PyTorch: an encoder of Hugging Face's layout
frozen_layers.py it in two parts, where the lower layers are frozen
"""

from fleet_model.workloads.text_classifier.classifier import TextClassifier

__all__ = ["TextClassifier"]
