"""Writing the weights of layers."""
