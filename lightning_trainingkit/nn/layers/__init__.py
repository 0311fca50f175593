"""Layers and small models."""
