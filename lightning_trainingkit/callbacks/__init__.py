"""Callbacks: each turns the hooks of a Trainer into calls of ``functional`` and ``nn``."""
