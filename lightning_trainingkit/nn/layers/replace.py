"""Find the places of a surgery in a finished model, and refuse those that can't be changed."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from lightning_trainingkit.nn.structure.head import find_head
from lightning_trainingkit.nn.structure.names import plain_name, plain_names
from lightning_trainingkit.nn.structure.parameter_patterns import match, no_match
from lightning_trainingkit.nn.structure.randomness import noise_on

__all__ = ["MARK", "check_place", "find_places", "is_kind", "named", "refuse_replaced", "refuse_shared", "surgery_on"]

MARK = "_trainingkit_surgery"
"""Entry in the ``__dict__`` of a layer that a surgery has made."""
_WRAPPERS = ("DataParallel", "DistributedDataParallel", "FullyShardedDataParallel", "FSDPModule")
T = TypeVar("T")


def named(model: nn.Module, skip: tuple[type[nn.Module], ...] = ()) -> dict[str, nn.Module]:
    """Name each submodule of a model once, without the parts that ``torch.compile`` adds.

    Args:
        model: The model.
        skip: Types of submodules to leave out, with all their parts.
    """
    outside = {part for each in model.modules() if isinstance(each, skip) for part in each.modules()}
    return {name: each for name, each in plain_names(dict(model.named_modules())).items() if each not in outside}


def find_places(
    argument: str,
    values: Mapping[str, T],
    model: nn.Module,
    names: Iterable[str],
    *,
    rule: str,
    hint: str = "",
) -> dict[str, T]:
    """Find the places that name patterns choose, and the value of each. The last match wins.

    Args:
        argument: Name of the argument that holds the patterns, for errors.
        values: Pattern to value. The pattern ``head`` is the last layer that the forward calls.
        model: The model.
        names: Names of the places to choose from.
        rule: What each pattern must do, for errors, such as ``"match a linear layer"``.
        hint: Sentence for errors that says what to do.

    Returns:
        Name to value, in the order of ``names``.

    Raises:
        ValueError: If a pattern matches none of the names.
    """
    known = list(names)
    chosen: dict[str, T] = {}
    for pattern, value in values.items():
        found = match(pattern, known)
        if pattern == "head" and "head" not in known and known:
            _refuse_quantised_head(model)
            found = [name for name in [plain_name(find_head(model))] if name in known]
        if not found:
            raise no_match(argument, rule, pattern, known, hint)
        chosen |= dict.fromkeys(found, value)
    return {name: chosen[name] for name in known if name in chosen}


def is_kind(module: nn.Module, kinds: tuple[type[nn.Module], ...]) -> bool:
    """Whether a layer is of one of some types. A layer in TorchScript is, so that ``check_place`` can refuse it."""
    if isinstance(module, torch.jit.ScriptModule):
        return module.original_name in {each.__name__ for each in kinds}
    return isinstance(module, kinds)


def _refuse_quantised_head(model: nn.Module) -> None:
    """Raise TypeError if the last layer may be a quantised one, which is not known as a layer."""
    quantised = [name for name, each in model.named_modules() if _is_quantised(each)]
    if quantised:
        raise TypeError(
            f"`head` must be looked for in a model in floating point, got {quantised[0]}, which is quantised. Give "
            "the name of the layer."
        )


def _is_quantised(module: nn.Module) -> bool:
    return "quantiz" in type(module).__module__


def surgery_on(module: nn.Module) -> str:
    """Name the surgery that has made a layer. Empty if there was none."""
    return str(vars(module).get(MARK, ""))


def check_place(model: nn.Module, name: str, *, by: str) -> None:
    """Raise an error if a layer must not be changed.

    Args:
        model: The model.
        name: Name of the layer in it.
        by: Name of the surgery, for errors.

    Raises:
        TypeError: If the layer is TorchScript or quantised, or in a wrapper for several devices.
        ValueError: If the layer has noise already, or its shape is unknown yet.
    """
    named_modules = plain_names(dict(model.named_modules(remove_duplicate=False)))
    parts = name.split(".")
    for above in [".".join(parts[:end]) for end in range(len(parts) + 1)]:
        each = named_modules.get(above)
        if isinstance(each, torch.jit.ScriptModule):
            raise _refused(by, above, "a module in Python", "TorchScript", "Do it before `torch.jit.script`.")
        if each is not None and any(kind.__name__ in _WRAPPERS for kind in type(each).__mro__):
            kind = type(each).__name__
            raise _refused(by, above, "a module without a wrapper", kind, "Do it before the model is wrapped.")
        if each is not None and _is_quantised(each):
            raise _refused(by, above, "in floating point", type(each).__name__, "Do it before quantisation.")
    module = named_modules[name]
    if (noise := noise_on(module)) is not None:
        raise _twice(name, by, noise.by, "Leave the layer out of one of the two, or replace layers first.")
    if any(is_lazy(each) for each in module.parameters(recurse=False)):
        raise ValueError(
            f"`{name}` must know its shapes for {by}, got a lazy layer. Call the model once on a batch before."
        )


def refuse_replaced(name: str, module: nn.Module, *, by: str) -> None:
    """Raise ValueError if a surgery has made a layer, so that another one must not replace it."""
    if earlier := surgery_on(module):
        raise _twice(name, by, earlier, "Leave the layer out of one of the two.")


def _twice(name: str, by: str, earlier: str, hint: str) -> ValueError:
    rule = f"a layer without another surgery for {by}"
    return ValueError(f"`{name}` must be {rule}, got one that {earlier} has changed. {hint}")


def _refused(by: str, name: str, rule: str, got: str, hint: str) -> TypeError:
    return TypeError(f"`{name or 'model'}` must be {rule} for {by}, got {got}. {hint}")


def refuse_shared(model: nn.Module, name: str, module: nn.Module, *, by: str) -> None:
    """Raise ValueError if a layer's weights are computed, or used by another layer too.

    Args:
        model: The model.
        name: Name of the layer.
        module: The layer.
        by: Name of the surgery, for errors.
    """
    own = {id(each) for each in module.parameters()}
    others = [
        plain_name(each)
        for each, parameter in model.named_parameters(remove_duplicate=False)
        if id(parameter) in own and not plain_name(each).startswith(f"{name}.")
    ]
    if others:
        raise ValueError(
            f"`{name}` must have weights of its own for {by}, got weights that are shared as {', '.join(others[:4])}. "
            "Leave the layer out."
        )
    if parametrize.is_parametrized(module):
        raise ValueError(
            f"`{name}` must be a plain layer for {by}, got weights that a parametrisation computes. Leave it out."
        )
