"""Averaging at test time."""
