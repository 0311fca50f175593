"""Trainings with a known fault, and healthy ones, to judge a health report by."""
