"""Run members of one architecture as one forward."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lightning_trainingkit.nn.averaging.call_arguments import Arguments
from lightning_trainingkit.nn.structure.attributes import attributes_put_back
from lightning_trainingkit.nn.structure.modes import evaluating

__all__ = ["Vectorized", "check_vectorize"]


class Vectorized:
    """One ``torch.vmap`` of a module's forward over the stacked weights of all members, without gradients.

    Args:
        module: The module that runs.
        states: For each member, the tensors that stand in the place of the module's, by name.

    Raises:
        ValueError: If the tensors differ in names or shapes, or a part of the module has hooks.
    """

    def __init__(self, module: nn.Module, states: Sequence[Mapping[str, Tensor]]) -> None:
        self._module = module
        if any(each._forward_hooks or each._forward_pre_hooks for each in module.modules()):
            raise _refusal("a part of the module has forward hooks, which would see all members at once")
        shapes = [{name: tensor.shape for name, tensor in state.items()} for state in states]
        if any(each != shapes[0] for each in shapes):
            raise _refusal("their weights differ in names or shapes")
        with torch.inference_mode(False), torch.no_grad():
            self._stacked = {name: torch.stack([each[name] for each in states]) for name in states[0]}

    @classmethod
    def of(cls, modules: Sequence[nn.Module]) -> "Vectorized":
        """Stack the parameters and buffers of modules on one device."""
        kinds = [[type(part).__name__ for part in each.modules()] for each in modules]
        if any(each != kinds[0] for each in kinds):
            raise _refusal("they have several architectures")
        return cls(modules[0], [dict(each.named_parameters()) | dict(each.named_buffers()) for each in modules])

    @torch.no_grad()
    def __call__(self, arguments: Arguments) -> Any:
        """Return the outputs ``(K, N, C)`` of all members for positional and named arguments."""
        with evaluating(self._module):
            forward = torch.vmap(lambda state: functional_call(self._module, state, *arguments), randomness="error")
            return forward(self._stacked)

    def checked(self, arguments: Arguments, expected: Sequence[Any]) -> Any:
        """Return the outputs of all members, and compare them with those of the loop.

        Raises:
            ValueError: If ``torch.vmap`` can't run the forward, if it sets attributes, or if a class probability
                differs by more than the root of the dtype's precision (3e-4 in float32, 0.09 in bfloat16).
        """
        try:
            with attributes_put_back(self._module) as changed:
                found = self(arguments)
                attributes = changed()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # under vmap a forward may raise anything
            said = str(error).strip().partition("\n")[0]
            raise _refusal(f"torch.vmap can't run their forward ({type(error).__name__}: {said})") from error
        if attributes:
            raise _refusal("their forward sets attributes of the module, which would hold all members at once")
        if isinstance(found, Tensor) and found.is_floating_point() and not _same(found, expected):
            raise _refusal("one forward gives other probabilities on the first batch than the members by themselves")
        return found


def check_vectorize(vectorize: bool, beside: Mapping[str, object]) -> None:
    """Raise ValueError if members are to run as one forward beside an option, by name, that needs them one by one."""
    given = [name for name, value in beside.items() if value]
    if vectorize and given:
        hint = "All members run as one forward. Leave one of both out."
        raise ValueError(f"`vectorize` must be False beside {given[0]}, got True. {hint}")


def _refusal(reason: str) -> ValueError:
    return ValueError(f"`vectorize` must be False for these members, got True: {reason}. Leave it out.")


def _same(found: Tensor, expected: Sequence[Any]) -> bool:
    if any(each.shape != found.shape[1:] for each in expected):
        return False
    device, one_by_one = found.device.type, torch.stack(list(expected))
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else one_by_one.dtype
    precision = max(torch.finfo(dtype).eps, 2**-10 if device == "cuda" else 0)  # TF32 has 10 bits
    wide = torch.promote_types(one_by_one.dtype, torch.float32)
    apart = found.to(wide).softmax(-1) - one_by_one.to(wide).softmax(-1)
    return bool((apart.abs() <= math.sqrt(precision)).all().item())  # NaN is a difference
