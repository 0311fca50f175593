"""The programs that choose a rate by trainings of their own: ours, Lightning's, and torch-lr-finder."""

import contextlib
import functools
import io
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from torch import nn

from lightning_trainingkit._lightning import L

from .tasks import Net, Task

__all__ = ["CHOOSERS"]

_DEVICE = {"accelerator": "cpu", "devices": 1}


def _ours(task: Task, seed: int) -> dict[str, Any]:
    from lightning_trainingkit.tuning import find_learning_rate

    with _counted() as steps:
        start = time.process_time()
        rate = find_learning_rate(task.module(seed), task.loader(), trainer_options=_DEVICE).rate
        return {"rate": rate, "iterations": len(steps), "seconds": time.process_time() - start}


def _lightning(mode: str) -> Callable[[Task, int], dict[str, Any]]:
    def choose(task: Task, seed: int) -> dict[str, Any]:
        from lightning.pytorch.tuner import Tuner

        with _counted() as steps, _trainer_options() as options, _silent():
            start = time.process_time()
            found = Tuner(L.Trainer(**options)).lr_find(task.module(seed), task.loader(), mode=mode)
            rate = None if found is None else found.suggestion()
            return {"rate": rate, "iterations": len(steps), "seconds": time.process_time() - start}

    return choose


def _torch_lr_finder(task: Task, seed: int) -> dict[str, Any]:
    """As its README has it: from 1e-7, the point of the steepest gradient."""
    import matplotlib as mpl
    from torch_lr_finder import LRFinder

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    with _silent():
        start = time.process_time()
        module = task.module(seed, lr=1e-7)
        finder = LRFinder(module, module.configure_optimizers(), nn.CrossEntropyLoss(), device="cpu")
        finder.range_test(task.loader())
        figure, axes = plt.subplots()
        _, rate = finder.plot(ax=axes)
        plt.close(figure)
        spent = time.process_time() - start
        return {"rate": rate, "iterations": len(finder.history["loss"]), "seconds": spent}


@contextlib.contextmanager
def _counted() -> Iterator[list[None]]:
    """Count the training steps of all modules, also of copies."""
    steps: list[None] = []
    step = Net.training_step

    @functools.wraps(step)
    def counting(module: Net, *args: Any) -> Any:
        steps.append(None)
        return step(module, *args)

    with mock.patch.object(Net, "training_step", counting):
        yield steps


@contextlib.contextmanager
def _trainer_options() -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        silent = dict.fromkeys(["logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"], False)
        yield {**_DEVICE, "default_root_dir": folder, **silent}


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


CHOOSERS: dict[str, Callable[[Task, int], dict[str, Any]]] = {
    "ours": _ours,
    "Lightning": _lightning("exponential"),
    "Lightning, linear": _lightning("linear"),
    "torch-lr-finder": _torch_lr_finder,
}
