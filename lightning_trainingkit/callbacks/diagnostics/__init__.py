"""Callbacks that look inside a training: activations, gradients and a health report in words."""
