"""Check that the members of an ensemble share the parts that run before a target."""

from collections.abc import Collection, Mapping
from itertools import chain, takewhile
from typing import Any

import torch
from torch import Tensor, nn

from lightning_trainingkit.nn.structure.names import plain_name, plain_names

__all__ = ["check_shared_parts"]


@torch.no_grad()
def check_shared_parts(
    module: nn.Module, target: str, read: Collection[int] | None, members: Mapping[str, Mapping[str, Any]]
) -> None:
    """Raise ValueError if a member has other weights than the module in a layer that runs before the target.

    The target of each member runs on the features of ``module``.

    Args:
        module: The tested module.
        target: Name of the averaged submodule.
        read: ``id`` of each tensor that was read before the target ran. None if unknown.
        members: ``state_dict`` of each whole member, by the member's name. Tensors that it lacks are not checked.
    """
    parts = module.named_modules()
    scripted = tuple(f"{plain_name(name)}." for name, part in parts if isinstance(part, torch.jit.ScriptModule))
    used = "may be used" if read is None else "is used"
    target, states = plain_name(target), {name: plain_names(state) for name, state in members.items()}
    for name, own in chain(module.named_parameters(), module.named_buffers()):
        name = plain_name(name)
        unread = read is not None and id(own) not in read and not name.startswith(scripted)
        if name.startswith(f"{target}.") or unread:
            continue
        for member, state in states.items():
            if isinstance(state.get(name), Tensor) and not _equal(state[name], own):
                part = name.rpartition(".")[0]
                pairs = zip(target.split("."), part.split("."), strict=False)
                around = ".".join(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
                advice = f"Set target={around!r}" if around else "Leave `target` out"
                raise ValueError(
                    f"`target` must hold all layers in which members differ, got {target!r}, and {member} has another "
                    f"{name}, which {used} before it. {advice}, so that members run on features of their own."
                )


def _equal(found: Tensor, own: Tensor) -> bool:
    return found.shape == own.shape and torch.equal(found.to(own.device, own.dtype), own)
