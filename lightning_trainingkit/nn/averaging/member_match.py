"""Decide whether a member's checkpoint runs in the tested module or in a module built for the checkpoint."""

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_trainingkit.nn.averaging.member_files import MemberFile
from lightning_trainingkit.nn.averaging.member_weights import Slots
from lightning_trainingkit.nn.structure.submodule import find_target
from lightning_trainingkit.nn.weights.surgery_record import check_surgery

__all__ = ["match"]


def match(file: MemberFile, module: nn.Module, target: str | None) -> nn.Module | dict[str, Tensor]:
    """Return a checkpoint's weights for the target, or the target of a module built for the checkpoint.

    - **Equal hyperparameters** (``hparams`` of a LightningModule), or none in the file: the weights, if they fit.
    - **Other hyperparameters**: the module's class builds a module. Its target is returned, unless it differs from the
      tested target in the weights alone.
    - **Building fails**: the weights, if they fit the target.
    - **Neither works**, the number of classes differs, or the file's training had other layers: a ValueError.
    """
    place = find_target(module, target)
    check_surgery(file.path, file.content, module)
    weights, fault = _weights(file, module, place, target)
    saved, own = file.hyper_parameters, getattr(module, "hparams", None)
    own = dict(own) if isinstance(own, Mapping) else {}
    left_out = file.left_out(type(module).__name__)
    if saved is not None:  # hyperparameters left out of the file come from the tested module
        saved |= {name: own[name] for name in left_out if name in own}
    if not fault and (saved is None or _equal(saved, own)):
        return weights
    classes = [each.get("num_classes") for each in (saved or {}, own)]
    if None not in classes and classes[0] != classes[1]:
        raise ValueError(
            f"`members` must have the same classes, got {classes[0]} in {file.path} and {classes[1]} in the tested "
            "module. Leave it out."
        )
    try:
        built = find_target(_build(file, type(module), saved, left_out), target)
    except _BuildError as reason:
        if not fault:
            return weights
        name = f"{type(module).__name__}{f'.{target}' if target else ''}"
        raise ValueError(
            f"`members` must be of the architecture of {name}, or be built by {type(module).__name__} with the "
            f"hyperparameters that they hold, got {file.path}: {fault}; {reason}. Pass the built module instead."
        ) from None
    return weights if not fault and _alike(built, place) else built.eval()


def _weights(
    file: MemberFile, module: nn.Module, place: nn.Module, target: str | None
) -> tuple[dict[str, Tensor], str | None]:
    """Return the target's weights, from a checkpoint of the module or the target, and the reason if they do not fit."""
    slots, prefix = Slots(place), f"{target}."
    inside = {name.removeprefix(prefix): value for name, value in file.weights.items() if name.startswith(prefix)}
    choices = [file.weights] if target is None or not inside else [inside, file.weights]
    if not getattr(module, "strict_loading", True):  # Lightning then loads files that lack a part
        own = copy.deepcopy(place.state_dict())
        choices = [{name: each.get(name, value) for name, value in own.items()} for each in choices]
    faults = [next(slots.faults(each), None) for each in choices]
    index = faults.index(None) if None in faults else 0
    return choices[index], faults[index]


class _BuildError(Exception):
    """The message is the reason."""


def _build(file: MemberFile, kind: type[nn.Module], saved: dict[str, Any] | None, left_out: list[str]) -> nn.Module:
    if saved is None:
        raise _BuildError("it holds no hyperparameters")
    if left_out:
        raise _BuildError(f"it lacks hyperparameters that would load by running code ({', '.join(left_out)})")
    parameters = inspect.signature(kind.__init__).parameters
    if not any(each.kind is each.VAR_KEYWORD for each in parameters.values()):  # as `load_from_checkpoint` does
        saved = {name: value for name, value in saved.items() if name in parameters}
    try:
        with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
            module = kind(**saved)
            for name, arguments in (("configure_model", ()), ("on_load_checkpoint", (file.content,))):
                if callable(hook := getattr(module, name, None)):
                    hook(*arguments)
            check_surgery(file.path, file.content, module)
            module.load_state_dict(file.weights, strict=getattr(module, "strict_loading", True))
    except Exception as error:  # the class is the user's
        said = f"({type(error).__name__}: {' '.join(str(error).split())})"
        raise _BuildError(f"{kind.__name__} can't be built with its hyperparameters {said}") from error
    return module


def _alike(one: nn.Module, other: nn.Module) -> bool:
    """Whether two modules have equal submodules and attributes, apart from their weights. False if in doubt."""
    ignored = {*vars(nn.Module()), "forward", "_compiled_call_impl"}  # patches of the call do not matter
    ours, theirs = (
        {
            name: (type(part), {key: value for key, value in vars(part).items() if key not in ignored})
            for name, part in module.named_modules()
        }
        for module in (one, other)
    )
    return ours.keys() == theirs.keys() and all(_equal(ours[name], theirs[name]) for name in ours)


def _equal(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except (RuntimeError, ValueError):  # arrays are compared entry by entry
        return repr(one) == repr(other)
