"""Write the weights of layers."""
