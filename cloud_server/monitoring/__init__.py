"""What operators see: status, metrics, TensorBoard."""
