"""Decide what a checkpoint is beside a module: weights for it, or a module of its own."""

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_trainingkit.nn.averaging.member_files import MemberFile
from lightning_trainingkit.nn.averaging.member_weights import Slots
from lightning_trainingkit.nn.structure.submodule import find_target

__all__ = ["match"]

Member = nn.Module | dict[str, Tensor]


def match(file: MemberFile, module: nn.Module, target: str | None) -> Member:
    """Return a checkpoint's weights for the target, or the target of a module that is built for them.

    If the checkpoint holds other hyperparameters than the module (``hparams`` of a LightningModule), a module of the
    same class is built with them, and used unless it computes what the target computes but for its weights. If it
    can't be built, the weights are taken for the target's where they fit.

    Args:
        file: A checkpoint of the whole module, or the target's saved ``state_dict``.
        module: The module whose submodule is averaged.
        target: Name of the submodule, None for the module itself.

    Raises:
        ValueError: If the weights don't fit and nothing can be built for them, or it has other classes.
    """
    place = find_target(module, target)
    weights, fault = _weights(file, module, place, target)
    saved, own = file.hyper_parameters, _hyper_parameters(module)
    if not fault and (saved is None or _equal(saved, own)):
        return weights
    _check_classes(file, saved, own)
    built, reason = _build(file, type(module), saved)
    if built is not None:
        found = find_target(built, target)
        return weights if not fault and _alike(found, place) else found.eval()
    if not fault:
        return weights
    name = f"{type(module).__name__}{f'.{target}' if target else ''}"
    raise ValueError(
        f"`members` must be of the architecture of {name}, or be built by {type(module).__name__} with the "
        f"hyperparameters that they hold, got {file.path}: {fault}; {reason}. Pass the built module instead."
    )


def _weights(
    file: MemberFile, module: nn.Module, place: nn.Module, target: str | None
) -> tuple[dict[str, Tensor], str | None]:
    slots, weights = Slots(place), file.weights
    prefix = f"{target}."
    inside = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    choices = [weights] if target is None or not inside else [inside, weights]
    faults = []
    for chosen in choices:
        if not getattr(module, "strict_loading", True):  # as Lightning loads it: a part may be left out of the files
            own = place.state_dict()
            chosen = {name: chosen[name] if name in chosen else copy.deepcopy(value) for name, value in own.items()}
        faults.append(next(slots.faults(chosen), None))
        if faults[-1] is None:
            return chosen, None
    return choices[0], faults[0]


def _hyper_parameters(module: nn.Module) -> dict[str, Any]:
    found = getattr(module, "hparams", None)
    return dict(found) if isinstance(found, Mapping) else {}


def _check_classes(file: MemberFile, saved: dict[str, Any] | None, own: dict[str, Any]) -> None:
    numbers = [each.get("num_classes") for each in (saved or {}, own)]
    if None not in numbers and numbers[0] != numbers[1]:
        raise ValueError(
            f"`members` must have the same classes, got {numbers[0]} in {file.path} and {numbers[1]} in the tested "
            "module. Leave it out."
        )


def _build(file: MemberFile, kind: type[nn.Module], saved: dict[str, Any] | None) -> tuple[nn.Module | None, str]:
    if saved is None:
        return None, "it holds no hyperparameters"
    parameters = inspect.signature(kind.__init__).parameters.values()
    if not any(each.kind is each.VAR_KEYWORD for each in parameters):  # as `load_from_checkpoint` does
        saved = {name: value for name, value in saved.items() if name in [each.name for each in parameters]}
    try:
        with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
            module = kind(**saved)
            for name, arguments in (("configure_model", ()), ("on_load_checkpoint", (file.content,))):
                hook = getattr(module, name, None)
                if callable(hook):
                    hook(*arguments)
            module.load_state_dict(file.weights, strict=getattr(module, "strict_loading", True))
    except Exception as error:  # the class is the user's
        said = " ".join(str(error).split())
        return None, f"{kind.__name__} can't be built with its hyperparameters ({type(error).__name__}: {said})"
    return module, ""


def _alike(one: nn.Module, other: nn.Module) -> bool:
    """Whether two modules compute the same but for their weights, as far as can be seen; no if in doubt."""
    ours, theirs = dict(one.named_modules()), dict(other.named_modules())
    return ours.keys() == theirs.keys() and all(
        type(each) is type(theirs[name]) and _equal(_settings(each), _settings(theirs[name]))
        for name, each in ours.items()
    )


def _settings(module: nn.Module) -> dict[str, Any]:
    ignored = {*vars(nn.Module()), "forward", "_compiled_call_impl"}  # how it is called, not what it computes
    return {name: value for name, value in vars(module).items() if name not in ignored}


def _equal(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except (RuntimeError, ValueError):  # arrays are compared entry by entry
        return repr(one) == repr(other)
