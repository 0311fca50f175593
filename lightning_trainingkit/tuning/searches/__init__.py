"""Searches for hyperparameters: the lecture's steps 4, 5 and 7, and what they found, in words."""
