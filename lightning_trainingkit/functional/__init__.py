"""The formulas: pure functions and small dataclasses that need torch alone."""
