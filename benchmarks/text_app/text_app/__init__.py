"""Fine-tune a text encoder with stock Flower, transformers and peft, written by hand."""
