"""Find the layers whose forward hooks must run in each of two calls of a training step."""

import functools
from typing import Any

from torch import nn

__all__ = ["hooked_layers"]

_OBSERVERS = ("lightning", "lightning_fabric", "lightning_trainingkit", "pytorch_lightning", "torch", "wandb")


def hooked_layers(root: nn.Module) -> set[nn.Module]:
    """Return the layers with forward hooks that a training step may depend on, and the layers that hold them.

    A step may read features that a hook has collected. Hooks of torch, Lightning, W&B and this library do not count:
    they observe, and shall see each batch once.
    """
    layers = dict(root.named_modules(remove_duplicate=False))
    found: set[nn.Module] = set()
    for name, layer in layers.items():
        if any(_is_of_user(hook) for hook in (*layer._forward_hooks.values(), *layer._forward_pre_hooks.values())):
            parts = name.split(".") if name else []
            found |= {layers[".".join(parts[:depth])] for depth in range(len(parts) + 1)}
    return found


def _is_of_user(hook: Any) -> bool:
    while isinstance(hook, functools.partial):
        hook = hook.func
    module = getattr(hook, "__module__", None) or type(hook).__module__
    return str(module).partition(".")[0] not in _OBSERVERS
