"""Freezing, cached features and linear probes."""
