"""The record of a fit in Weights & Biases."""
