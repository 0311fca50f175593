"""Leave hyperparameters out of checkpoints if loading them would run code."""

import inspect
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from lightning_trainingkit._lightning import L, rank_zero_info
from lightning_trainingkit.nn.weights.checkpoint import LEFT_OUT

__all__ = ["say_left_out", "without_unsafe"]

_TEXT = "left out of the checkpoint, since it would load by running code"


def say_left_out(trainer: L.Trainer) -> None:
    """Print before training which hyperparameters the checkpoints will lack."""
    for owner in (trainer.lightning_module, trainer.datamodule):  # type: ignore[attr-defined]
        names = _unsafe(owner.hparams) if owner is not None else []
        if names:
            kind = type(owner).__name__
            given = ", ".join(f"{name}=..." for name in names)
            rank_zero_info(
                f"Checkpoints leave out these hyperparameters of {kind}, since loading them would run code: "
                f"{', '.join(names)}. Load by `{kind}.load_from_checkpoint(path, {given})`."
            )


@contextmanager
def without_unsafe(trainer: L.Trainer) -> Iterator[None]:
    """Save checkpoints in this context without unsafe hyperparameters, such as modules. Each file names them."""
    module = trainer.lightning_module
    datamodule = trainer.datamodule  # type: ignore[attr-defined]
    own = vars(module).get("on_save_checkpoint")
    found = module.on_save_checkpoint  # the last hook before Lightning writes, with `save_weights_only` too

    def on_save_checkpoint(checkpoint: dict[str, Any]) -> None:
        found(checkpoint)
        left_out = {}
        for owner in (module, datamodule):
            saved = None if owner is None else checkpoint.get(owner.CHECKPOINT_HYPER_PARAMS_KEY)
            if not saved:
                continue
            names = _unsafe(saved)
            checkpoint[owner.CHECKPOINT_HYPER_PARAMS_KEY] = {
                name: _TEXT if name in names else value
                for name, value in saved.items()
                if name not in names or _has_default(owner, name)
            }
            checkpoint.pop(owner.CHECKPOINT_HYPER_PARAMS_TYPE, None)  # a class of omegaconf
            if names:
                left_out[type(owner).__name__] = names
        if left_out:
            checkpoint[LEFT_OUT] = left_out

    vars(module)["on_save_checkpoint"] = on_save_checkpoint
    try:
        yield
    finally:
        if own is None:
            del vars(module)["on_save_checkpoint"]
        else:
            vars(module)["on_save_checkpoint"] = own


def _has_default(owner: object, name: str) -> bool:
    """Whether the class could be built without the argument, and would silently take its default."""
    given = inspect.signature(type(owner).__init__).parameters.get(name)
    return given is not None and given.default is not inspect.Parameter.empty


def _unsafe(hyperparameters: Mapping[str, Any]) -> list[str]:
    return [name for name, value in hyperparameters.items() if not _is_safe(value)]


def _is_safe(value: Any) -> bool:
    if value is None or type(value) in (bool, int, float, str):  # not NumPy's float64, which is a float too
        return True
    if isinstance(value, nn.Module):  # may be large
        return False
    file = io.BytesIO()
    try:
        torch.save(value, file)
        file.seek(0)
        torch.load(file, weights_only=True)
    except Exception:  # a user's class may raise any error on pickling
        return False
    return True
