"""Copies of a module and of its data, so that a trial changes neither."""

import copy
from collections.abc import Mapping
from functools import partial
from types import MethodType
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from lightning_trainingkit._lightning import L
from lightning_trainingkit.callbacks.diagnostics.stand_ins import held_by_functions

__all__ = ["copy_data", "copy_module"]

T = TypeVar("T")
_LONG = 1000


def copy_module(module: L.LightningModule) -> L.LightningModule:
    """Copy a module, without its Trainer and without the callbacks that it brings.

    Args:
        module: The module. It is left as it is.

    Raises:
        TypeError: If the module cannot be copied.
    """
    if not isinstance(module, L.LightningModule):
        raise TypeError(
            f"`module` must be a LightningModule, got {_named(module)}. Give an object of your LightningModule."
        )
    memo: dict[int, Any] = {}
    twin = _copied("module", module, memo)
    for name, value in vars(twin).items():
        # Python copies no function. LightningCLI's `configure_optimizers` is one that holds a built optimizer.
        if isinstance(value, MethodType) and isinstance(value.__func__, partial):
            vars(twin)[name] = MethodType(_copied("module", value.__func__, memo), twin)
    for layer in twin.modules():
        if isinstance(layer, L.LightningModule):
            compiled = ("forward",) if layer._compiler_ctx is not None else ()
            for name in [name for name in vars(layer) if name.endswith("_step") or name in compiled]:
                del vars(layer)[name]  # Lightning's compiled steps
            layer._compiler_ctx = None
    held = held_by_functions(twin, module)
    if held:
        raise TypeError(
            f"`module` must be copyable for a trial, got a function that holds a part of it: {held}. Write it as a "
            "method of the module."
        )
    vars(twin)["configure_callbacks"] = _no_callbacks
    for hook in ("on_train_end", "on_fit_end"):  # they may write files, and come after all that a trial looks at
        vars(twin)[hook] = _nothing
    twin.zero_grad()
    return twin


def copy_data(data: T) -> T:
    """Copy a DataModule or a loader with its samplers and generators.

    Tensors, arrays and lists of more than 1,000 entries are shared, not copied: a trial reads them.

    Args:
        data: The DataModule, loader or collection of loaders. It is left as it is.

    Raises:
        TypeError: If it cannot be copied, such as a stream that cannot be read twice.
    """
    if isinstance(data, type | str) or (isinstance(data, Dataset) and not isinstance(data, IterableDataset)):
        raise TypeError(
            f"`data` must be a DataModule or a train loader, got {_named(data)}. Give an object, such as "
            "`DataLoader(train_set, batch_size=32, shuffle=True)`."
        )
    kept: dict[int, Any] = {}
    _share(data, kept, set())
    return _copied("data", data, kept)


def _named(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


def _copied(name: str, value: T, memo: dict[int, Any]) -> T:
    try:
        return copy.deepcopy(value, memo)
    except Exception as error:
        advice = {
            "module": "Keep open files, locks, generators, and tensors with a graph out of the module.",
            "data": "Give a DataLoader whose dataset can be copied. A stream cannot be read twice.",
        }[name]
        kind = type(value).__name__
        raise TypeError(f"`{name}` must be copyable for a trial, got {kind}: {error}. {advice}") from error


def _share(value: Any, kept: dict[int, Any], seen: set[int]) -> None:
    """Collect the parts of a value that the copy shares."""
    todo = [value]
    while todo:
        part = todo.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, torch.Tensor | np.ndarray) or (isinstance(part, list | tuple) and len(part) > _LONG):
            kept[id(part)] = part
            continue
        if isinstance(part, L.Trainer):
            kept[id(part)] = None
            continue
        if isinstance(part, DataLoader) and part._iterator is not None:  # its workers run
            kept[id(part._iterator)] = None
        if isinstance(part, Mapping):
            todo += part.values()
        elif isinstance(part, list | tuple):
            todo += part
        elif hasattr(part, "__dict__") and not isinstance(part, type):
            todo += vars(part).values()


def _no_callbacks() -> list[L.Callback]:
    return []


def _nothing() -> None:
    return None
