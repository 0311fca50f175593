"""Checkpoints of the best weights and of cycles."""
