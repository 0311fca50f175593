"""Add a sentence to an exception on its way to the user."""

import sys

from lightning_trainingkit._lightning import rank_zero_warn

__all__ = ["add_note"]


def add_note(exception: BaseException, note: str) -> None:
    """Add a note to an exception. Python 3.10 has no notes, so there it is a warning.

    Args:
        exception: The exception, which the caller raises again.
        note: Sentence that says what to do.
    """
    if sys.version_info >= (3, 11):
        exception.add_note(note)
    else:
        rank_zero_warn(note)
