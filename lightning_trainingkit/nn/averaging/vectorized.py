"""Run members of one architecture as one forward."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lightning_trainingkit.functional import _check
from lightning_trainingkit.nn.averaging.call_arguments import Arguments
from lightning_trainingkit.nn.structure.attributes import attributes_put_back
from lightning_trainingkit.nn.structure.modes import evaluating

__all__ = ["Vectorized", "check_vectorize"]


class Vectorized:
    """One ``torch.vmap`` of a module's forward over the stacked tensors of all members, without gradients."""

    def __init__(self, module: nn.Module, states: Sequence[Mapping[str, Tensor]]) -> None:
        self._module = module
        shapes = [{name: tensor.shape for name, tensor in state.items()} for state in states]
        if any(each != shapes[0] for each in shapes):
            raise _VectorizeError("their weights differ in names or shapes")
        with torch.inference_mode(False), torch.no_grad():
            self._stacked = {name: torch.stack([each[name] for each in states]) for name in states[0]}

    @classmethod
    def of(cls, modules: Sequence[nn.Module]) -> "Vectorized":
        """Stack the parameters and buffers of modules on one device."""
        kinds = [[type(part).__name__ for part in each.modules()] for each in modules]
        if any(each != kinds[0] for each in kinds):
            raise _VectorizeError("they have several architectures")
        return cls(modules[0], [dict(each.named_parameters()) | dict(each.named_buffers()) for each in modules])

    @torch.no_grad()
    def __call__(self, arguments: Arguments) -> Any:
        """Return the outputs ``(K, N, C)`` of all members for positional and named arguments."""
        with evaluating(self._module) as parts:
            if any(part._forward_hooks or part._forward_pre_hooks for part in parts):
                raise _VectorizeError("a part of the module has forward hooks, which would see all members at once")
            forward = torch.vmap(lambda state: functional_call(self._module, state, *arguments), randomness="error")
            return forward(self._stacked)

    def checked(self, arguments: Arguments, expected: Sequence[Any]) -> Any:
        """Return the outputs of all members, or raise ValueError if they differ from the expected outputs.

        A class probability may differ by the square root of the dtype's precision: 3e-4 in float32, 0.09 in bfloat16.
        """
        try:
            with attributes_put_back(self._module) as changed:
                found = self(arguments)
                attributes = changed()
        except (torch.OutOfMemoryError, _VectorizeError):
            raise
        except Exception as error:  # under vmap a forward may raise any error
            said = str(error).strip().partition("\n")[0]
            raise _VectorizeError(f"torch.vmap can't run their forward ({type(error).__name__}: {said})") from error
        if attributes:
            raise _VectorizeError("their forward sets attributes of the module, which would hold all members at once")
        if isinstance(found, Tensor) and found.is_floating_point() and not _same(found, torch.stack([*expected])):
            raise _VectorizeError(
                "one forward gives other probabilities on the first batch than the members one by one"
            )
        return found


def check_vectorize(vectorize: bool, beside: Mapping[str, object]) -> None:
    """Raise ValueError if ``vectorize`` is set together with an option (by name) that needs members one by one."""
    _check.flag("vectorize", vectorize)
    given = [name for name, value in beside.items() if value]
    if vectorize and given:
        hint = "All members run as one forward. Leave one of both out."
        raise ValueError(f"`vectorize` must be False beside {given[0]}, got True. {hint}")


class _VectorizeError(ValueError):
    def __init__(self, reason: str) -> None:
        super().__init__(f"`vectorize` must be False for these members, got True: {reason}. Leave it out.")


def _same(found: Tensor, expected: Tensor) -> bool:
    device = found.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else expected.dtype
    precision = max(torch.finfo(dtype).eps, 2**-10 if device == "cuda" else 0)  # TF32 has 10 bits
    wide = torch.promote_types(expected.dtype, torch.float32)
    one, other = (each.to(wide).softmax(-1) for each in (found, expected))
    return torch.allclose(one, other, rtol=0, atol=math.sqrt(precision))  # NaN is a difference
