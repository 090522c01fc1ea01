"""Few numbers that are trained in the place of a large tensor."""
