"""Transfer learning in phases."""
