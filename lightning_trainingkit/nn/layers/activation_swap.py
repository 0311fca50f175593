"""Replace the activations of a finished model."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from lightning_trainingkit.nn.layers.activation_modules import NewActivation, read_activations
from lightning_trainingkit.nn.layers.maxout import Maxout, widen_layer, widen_norm
from lightning_trainingkit.nn.layers.replace import check_place, find_places, refuse_replaced, refuse_shared, surgery_on
from lightning_trainingkit.nn.layers.replacement import Replacement, refuse_hooks
from lightning_trainingkit.nn.structure.activation_uses import (
    ActivationUses,
    FunctionalUse,
    activation_modules,
    activation_uses,
)
from lightning_trainingkit.nn.structure.names import plain_name, plain_names
from lightning_trainingkit.nn.structure.parameter_patterns import match

__all__ = ["ActivationPlan", "plan_activations", "replace_activation"]

_ALPHA = {nn.Dropout: nn.AlphaDropout, nn.Dropout1d: nn.FeatureAlphaDropout}
_ALPHA |= {nn.Dropout2d: nn.FeatureAlphaDropout, nn.Dropout3d: nn.FeatureAlphaDropout}


@dataclass
class ActivationPlan:
    """What a replacement of activations will change.

    Args:
        modules: Name of each module to the one that takes its place.
        changes: Name of each module, with the old and the new one in words.
        notes: What stays as it was, and why, in sentences.
    """

    modules: dict[str, nn.Module] = field(default_factory=dict)
    changes: list[tuple[str, str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def replace_activation(model: nn.Module, to: str | Mapping[str, str], *, init: bool = False) -> Replacement:
    """Replace the activation modules of a finished model, in place. The model is not run.

    - **Activations without parameters** change no key of the state dict.
    - **prelu** adds a slope for each module.
    - **maxout** makes the layer before it, and a BatchNorm between them, ``k`` times as wide.
    - **selu** also turns the dropout after it into alpha dropout.
    - **Gates and outputs** (a sigmoid that is a factor, or that ends the model) stay, unless they are named exactly.

    Args:
        model: Any model. Tracing its forward finds gates, functions and the layers before Maxout.
        to: An activation for all places, or a dict of name patterns to activations. The last match wins. Names are
            those of `torch.nn.functional`, such as ``"gelu"`` and ``"leaky_relu(0.2)"``, and ``"maxout(2)"``.
        init: Whether the layers before a new SELU get LeCun-normal weights, which SELU needs to normalise itself.

    Returns:
        What was done: ``new_keys``, ``added_parameters`` and the like, and ``undo()``.

    Raises:
        TypeError: If a place is TorchScript, quantised or wrapped.
        ValueError: If a pattern matches no activation module, an activation is unknown, a forward calls a matched
            activation as a function, or a place can't take Maxout.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> done = replace_activation(net, "maxout")
        >>> net[1], done.resized_keys, done.added_parameters
        (Maxout(pieces=2, dim=-1), ['0.weight', '0.bias'], 40)
        >>> done.undo()
        >>> net[1]
        ReLU()

    References:
        Goodfellow et al., "Maxout Networks", ICML 2013, arXiv:1302.4389.
        Klambauer et al., "Self-Normalizing Neural Networks", NIPS 2017, arXiv:1706.02515.
    """
    by = "replace_activation"
    done = Replacement(model, plan_activations(model, read_activations(to), by, init=init).modules, by)
    done.put()
    return done


def plan_activations(
    model: nn.Module,
    to: Mapping[str, NewActivation],
    by: str,
    *,
    init: bool = False,
    skip: tuple[type[nn.Module], ...] = (),
) -> ActivationPlan:
    """Find the activations to replace and make the new modules. The model stays as it is.

    Args:
        model: The model.
        to: Name pattern to the new activation.
        by: Name of the surgery. Places where the same surgery has put the same activation are left out.
        init: Whether the layers before a new SELU get new weights.
        skip: Types of submodules to leave out.

    Raises:
        TypeError: If a place is TorchScript, quantised or wrapped.
        ValueError: If a pattern matches nothing, or a place can't be changed.
    """
    uses = activation_uses(model)
    modules = {plain_name(name): each for name, each in activation_modules(model, skip).items()}
    use_of = plain_names(uses.modules)
    everything = plain_names(dict(model.named_modules()))
    made = {name: each for name, each in everything.items() if surgery_on(each) == by}
    modules |= {name: each for name, each in made.items() if isinstance(each, Maxout | nn.Identity)}
    _refuse_functions(to, [each for each in uses.functions if not _inside(model, each.owner, skip)])
    rule, hint = "match an activation module", "Functions such as F.relu can't be replaced."
    places = find_places("to", to, model, modules, rule=rule, hint=hint)
    plan = ActivationPlan(notes=_untraced_notes(uses))
    for name, new in places.items():
        old = modules[name]
        if surgery_on(old) == by and _is_made(old, new):
            continue
        check_place(model, name, by=by)
        refuse_replaced(name, old, by=by)
        if use_of[name].is_gate and name not in to:
            plan.notes.append(f"{name} ({type(old).__name__}) stays: it is a gate or an output.")
            continue
        before = tuple(map(plain_name, use_of[name].source.layers))
        layers = before if new.name == "maxout" else ()
        if new.name == "maxout":
            _check_maxout(name, use_of[name].calls, layers, use_of[name].source.words)
        module = new.build(everything[layers[0]] if layers else None)
        if repr(module) == repr(old).replace("inplace=True", ""):
            continue
        redrawn = before[:1] if new.name == "selu" and init else ()
        for layer in (*layers, *redrawn):
            check_place(model, layer, by=by)
            refuse_replaced(layer, everything[layer], by=by)
            refuse_shared(model, layer, everything[layer], by=by)
            refuse_hooks(layer, everything[layer], by)
        _like(module, old, model)
        plan.modules[name] = module
        plan.changes.append((name, str(old), str(module)))
        for layer in layers:
            wider = (widen_layer if layer == layers[0] else widen_norm)(everything[layer], new.pieces)
            plan.modules[layer] = wider
            plan.changes.append((layer, str(everything[layer]), str(wider)))
        if new.name == "selu":
            _normalise(plan, everything, redrawn, set(map(plain_name, use_of[name].dropouts)))
            if init and not redrawn:
                plan.notes.append(f"{name}: no new weights, since its input comes from {use_of[name].source.words}.")
    return plan


def _inside(model: nn.Module, name: str, kinds: tuple[type[nn.Module], ...]) -> bool:
    parts = name.split(".")
    above = [".".join(parts[:end]) for end in range(len(parts) + 1)]
    return any(isinstance(model.get_submodule(each), kinds) for each in above)


def _refuse_functions(to: Mapping[str, NewActivation], functions: list[FunctionalUse]) -> None:
    """Raise ValueError if a pattern matches the forward that calls an activation, or the layer before it."""
    matched = [
        each
        for each in functions
        for pattern, new in to.items()
        if each.function != new.name and match(pattern, {plain_name(each.owner), plain_name(each.after)})
    ]
    if matched:
        listed = ", ".join(map(str, dict.fromkeys(matched[:8])))
        raise ValueError(
            f"`to` must match activation modules alone, got patterns that match functions: {listed}. A function can't "
            "be replaced. Write nn.ReLU in the model's `__init__`, or give patterns that leave these places out."
        )


def _check_maxout(name: str, calls: int, layers: tuple[str, ...], source: str) -> None:
    if calls != 1 or not layers:
        got = f"one that the forward calls {calls} times" if calls > 1 else f"one whose input comes from {source}"
        raise ValueError(
            f"`{name}` must follow one linear or convolutional layer, whose output nothing but a BatchNorm takes, to "
            f"become Maxout, got {got}. Give patterns that leave it out."
        )


def _is_made(old: nn.Module, new: NewActivation) -> bool:
    if new.name == "maxout":
        return getattr(old, "pieces", None) == new.pieces
    made = new.build()
    return type(made) is type(old) and (new.name == "prelu" or repr(made) == repr(old))


def _like(new: nn.Module, old: nn.Module, model: nn.Module) -> None:
    tensor = next((each for each in (*old.parameters(), *model.parameters()) if each.is_floating_point()), None)
    if tensor is not None:
        new.to(tensor.device, tensor.dtype)


def _normalise(
    plan: ActivationPlan, everything: dict[str, nn.Module], redrawn: tuple[str, ...], dropouts: set[str]
) -> None:
    """Add what belongs to SELU: alpha dropout after it, and new weights before it."""
    for name in sorted(dropouts):
        old = everything[name]
        if name not in plan.modules:
            plan.modules[name] = _ALPHA[type(old)](old.p)  # type: ignore[index,arg-type]
            plan.changes.append((name, str(old), str(plan.modules[name])))
    for name in redrawn:
        if name not in plan.modules:
            plan.modules[name] = _redrawn(everything[name])
            plan.changes.append((name, "its weights", "LeCun-normal weights, zero biases"))


@torch.no_grad()
def _redrawn(layer: nn.Module) -> nn.Module:
    """Copy a layer, with weights of mean 0 and variance ``1 / fan_in``, from torch's generator on the CPU."""
    new: Any = copy.deepcopy(layer)
    drawn = torch.randn(new.weight.shape)
    new.weight.copy_(drawn / math.sqrt(new.weight[0].numel()))
    if new.bias is not None:
        new.bias.zero_()
    return new  # type: ignore[no-any-return]


def _untraced_notes(uses: ActivationUses) -> list[str]:
    return [f"{name or 'The model'}: {reason}. Functions in it are not seen." for name, reason in uses.untraced.items()]
