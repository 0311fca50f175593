"""Let a module be on another device for a while."""

from typing import Any

import torch
from torch import nn

__all__ = ["Relocation", "fits_on"]

SHARE = 0.5
"""Of the free memory of a device, the most that waiting members may take; the rest is for what passes compute."""


def fits_on(device: torch.device, needed: int) -> bool:
    """Tell whether so many bytes more may lie on a device: half of what is free, on a CPU always.

    A device that does not tell how much is free is taken for full.
    """
    if device.type == "cpu":
        return True
    backend = torch.get_device_module(device)
    if not hasattr(backend, "mem_get_info"):
        return False
    free, _ = backend.mem_get_info(device)
    unused = backend.memory_reserved(device) - backend.memory_allocated(device)  # held by torch's allocator
    return bool(needed <= SHARE * (free + unused))


class Relocation:
    """A module that goes to another device for a while, and to another floating dtype.

    Args:
        module: The module. If its tensors lie on several devices it stays there.
        device: Where to.
        dtype: The dtype of its floating-point tensors, None for the one that they have.
    """

    def __init__(self, module: nn.Module, device: torch.device, dtype: torch.dtype | None) -> None:
        self.module = module
        owners: list[dict[str, Any]] = []
        for owner in module.modules():
            owners += [owner._parameters, owner._buffers]
        found = [(held, name, tensor) for held in owners for name, tensor in held.items() if tensor is not None]
        devices = {tensor.device for _, _, tensor in found}
        dtypes = {tensor.dtype for _, _, tensor in found if tensor.is_floating_point()}
        self._home: dict[str, Any] = {}
        self._going = going = dict[str, Any]()
        if len(devices) == 1 and devices != {device}:
            self._home["device"], going["device"] = devices.pop(), device
        if dtype is not None and len(dtypes) == 1 and dtypes != {dtype}:
            self._home["dtype"], going["dtype"] = dtypes.pop(), dtype
        # What modules share is found by each of them before one of them goes.
        self._found = [(held, name, tensor, tensor.data) for held, name, tensor in found] if going else []

    def go(self) -> None:
        """Bring the module to the device."""
        if not self._going:
            return
        try:
            with torch.inference_mode(False), torch.no_grad():
                self.module.to(**self._going)
        except BaseException:  # there may be no room for it
            self.put_back()
            raise

    def put_back(self) -> None:
        """Bring the module back, with the tensors and the data that it had."""
        if not self._found:
            return
        with torch.inference_mode(False), torch.no_grad():
            for held, name, tensor, data in self._found:
                tensor.data = data
                held[name] = tensor
            self.module.to(**self._home)  # finds its tensors there, and learns where it is
