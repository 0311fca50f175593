"""Command centers: all runs on one page, from one description, in W&B and in a local file."""
