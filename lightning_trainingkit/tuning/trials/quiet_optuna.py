"""Hide what Optuna says about its studies."""

from collections.abc import Iterator
from contextlib import contextmanager

from lightning_trainingkit.tuning.trials.storage import import_optuna

__all__ = ["quiet_optuna"]


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Hide that a study was created. The user's own setting comes back."""
    logging = import_optuna().logging
    level = logging.get_verbosity()
    logging.set_verbosity(max(level, logging.WARNING))
    try:
        yield
    finally:
        logging.set_verbosity(level)
