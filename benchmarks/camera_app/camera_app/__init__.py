"""Train a head on camera frames with stock Flower and Keras, as a competent user writes it."""
