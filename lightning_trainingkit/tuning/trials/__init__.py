"""Trials of a search: each in processes of its own, counted in one study over all its workers."""
