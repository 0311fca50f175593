"""The parts of the benchmark ``curves.py``."""
