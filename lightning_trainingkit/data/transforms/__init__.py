"""Transforms of torchvision's v2: augmentations with a draw for each image."""
