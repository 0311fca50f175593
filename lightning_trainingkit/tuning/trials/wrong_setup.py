"""An error that ends a search."""

__all__ = ["WrongSetupError"]


class WrongSetupError(ValueError):
    """Something that no other hyperparameters would mend, so that no further trial is started."""
