"""The server that forks the process of each trial: it has torch, Lightning, the kit and the user's module imported."""

import json
import multiprocessing
import os
import sys
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.context import BaseContext
from unittest.mock import patch

from lightning_trainingkit._lightning import L
from lightning_trainingkit.tuning.trials.wrong_setup import WrongSetupError

__all__ = ["UNGUARDED", "start_method", "start_server", "trial_context", "without_main"]

start_method = "forkserver"
UNGUARDED = (
    "`module` must stand in a script whose last part is under `if __name__ == '__main__':`, got one that other "
    "processes cannot import. Write that line, or move the module into a file of its own."
)
VARIABLE = "TRAININGKIT_PRELOAD"  # for `trial_preload.py`


@contextmanager
def trial_context(modules: Sequence[str], with_main: bool) -> Iterator[BaseContext]:
    """The context in which processes of trials start. The server starts with the first one; it touches no GPU.

    A program has one such server. Where the program has started one before, without these modules, each trial imports
    them itself.

    Args:
        modules: Python modules of the user that the server imports.
        with_main: Whether the module or the data of the search stand in the program's own script.
    """
    context = multiprocessing.get_context(start_method)
    if start_method == "forkserver":
        main = ["__main__"] if with_main else []
        context.set_forkserver_preload([*main, "lightning_trainingkit.tuning.trials.trial_preload"])
    preload = json.dumps({"path": sys.path, "modules": list(modules)})
    package = L.__name__.partition(".")[0]  # the server imports the kit before the user's module
    with patch.dict(os.environ, {VARIABLE: preload, "TRAININGKIT_LIGHTNING": package}):
        yield context


def start_server(context: BaseContext, with_main: bool) -> None:
    """Start the server, and wait until it has imported everything: by an empty process.

    Raises:
        WrongSetupError: If the server cannot import the program's own script.
    """
    if start_method != "forkserver":
        return
    process = context.Process(target=_nothing, name="empty")  # type: ignore[attr-defined]
    try:
        with without_main(with_main):
            process.start()
    except (EOFError, ConnectionError) as error:
        raise WrongSetupError(UNGUARDED) from error
    process.join()
    if with_main and process.exitcode:
        raise WrongSetupError(UNGUARDED)


def _nothing() -> None:
    """The work of an empty process."""


@contextmanager
def without_main(with_main: bool) -> Iterator[None]:
    """Keep new processes from running the program's own script again, which they do not need."""
    if with_main:
        yield
        return
    with patch.dict(sys.modules, {"__main__": types.ModuleType("__main__")}):
        yield
