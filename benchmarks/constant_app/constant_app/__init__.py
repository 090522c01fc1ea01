"""Send a model of 1 MB round and round with stock Flower; training adds a constant."""
