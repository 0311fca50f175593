"""Averaging of a classifier's outputs over members, random masks and views."""
