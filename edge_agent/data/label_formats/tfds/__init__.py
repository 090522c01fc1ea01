"""TensorFlow Datasets directories, read and written without TensorFlow."""
