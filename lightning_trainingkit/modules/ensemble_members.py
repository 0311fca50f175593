"""Members inside a module: built from files, and left on their device with ``offload``."""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from lightning_trainingkit._lightning import L
from lightning_trainingkit.nn.averaging.member_files import MemberFile
from lightning_trainingkit.nn.averaging.member_match import match
from lightning_trainingkit.nn.averaging.member_weights import Slots
from lightning_trainingkit.nn.averaging.placement import Relocation, out_of_memory_hint
from lightning_trainingkit.nn.structure.submodule import find_target

__all__ = ["MemberList", "build_member"]


class MemberList(nn.ModuleList):
    """Members that stay on their device, with ``offload``, when the module around them goes to another."""

    def __init__(self, members: Sequence[nn.Module], offload: bool = False) -> None:
        super().__init__(members)
        self.offload = offload

    def in_turn(self, x: Tensor) -> Iterator[Any]:
        """Yield the output of each member. A member is on the device of ``x`` for its turn."""
        for member in self:
            move = Relocation(member, x.device, None) if self.offload else None
            try:
                if move is not None:
                    move.go()
                yield member(x)
            finally:
                if move is not None:
                    move.put_back()

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "MemberList":
        def cast_only(tensor: Tensor) -> Tensor:
            return tensor.to(fn(tensor.new_empty(0)).dtype)

        with out_of_memory_hint(self.offload):
            applied = super()._apply(cast_only if self.offload else fn, recurse)  # type: ignore[no-untyped-call]
            return cast("MemberList", applied)


def build_member(read: MemberFile | nn.Module, module: nn.Module, target: str | None) -> nn.Module:
    """Return a member as a separate module. ``module`` is not changed."""
    if not isinstance(read, MemberFile):
        return find_target(read, target) if isinstance(read, L.LightningModule) else read
    matched = match(read, module, target)
    if isinstance(matched, nn.Module):
        return matched
    member = copy.deepcopy(find_target(module, target))
    slots = Slots(member)
    with torch.no_grad():
        for tensor, value in zip(slots.tensors, slots.fit(matched), strict=True):
            tensor.copy_(value)
    return member
