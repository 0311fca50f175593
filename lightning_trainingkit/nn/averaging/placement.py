"""Move a module to another device for a while."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

__all__ = ["Relocation", "out_of_memory_hint"]


class Relocation:
    """Move a module to another device for a while, and to another floating dtype unless ``dtype`` is None.

    A module with tensors on several devices keeps its devices. A module with several dtypes keeps its dtypes.
    """

    def __init__(self, module: nn.Module, device: torch.device, dtype: torch.dtype | None) -> None:
        self.module = module
        owners: list[dict[str, Any]] = [held for part in module.modules() for held in (part._parameters, part._buffers)]
        # The data of all members are recorded before any member moves: members may share parts.
        self._own = [(held, name, t, t.data) for held in owners for name, t in held.items() if t is not None]
        self._away: dict[str, Any] = {}
        self._home: dict[str, Any] = {}
        floats = [data for *_, data in self._own if data.is_floating_point()]
        found = {"device": {data.device for *_, data in self._own}, "dtype": {data.dtype for data in floats}}
        for key, place in (("device", device), ("dtype", dtype)):
            if place is not None and len(found[key]) == 1 and found[key] != {place}:
                self._away[key], self._home[key] = place, found[key].pop()

    def go(self) -> None:
        """Move the module. If that raises, the module stays on its device."""
        try:
            self._to(self._away)
        except BaseException:
            self.put_back()
            raise

    def put_back(self) -> None:
        """Put the module's own tensors and data back."""
        if self._away:
            for held, name, tensor, data in self._own:
                tensor.data = data
                held[name] = tensor
            self._to(self._home)  # moves no data, but updates the `device` of a LightningModule

    @torch.no_grad()
    def _to(self, place: dict[str, Any]) -> None:
        if place:
            with torch.inference_mode(False):
                self.module.to(**place)


@contextmanager
def out_of_memory_hint(offload: bool) -> Iterator[None]:
    """Add the hint ``offload=True`` to a ``torch.OutOfMemoryError``, unless ``offload`` is set."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        if offload:
            raise
        hint = "Set `offload=True` (without `vectorize`) to bring one member at a time."
        raise torch.OutOfMemoryError(f"`members` must fit on the device together, got: {error} {hint}") from error
