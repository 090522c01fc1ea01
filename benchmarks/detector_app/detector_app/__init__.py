"""Train a detector's head on frames with boxes with stock Flower and Keras, written by hand."""
