"""What the layers and gradients of a model do in training, and the health of that training."""
