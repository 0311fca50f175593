"""Checkpoints, averaged weights and the BatchNorm statistics that belong to them."""
