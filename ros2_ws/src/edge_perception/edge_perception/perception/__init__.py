"""What perception_node is made of."""
