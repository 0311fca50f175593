"""Models and optimizers by name, for configuration files."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torchvision
from torch import nn
from torch.optim import Optimizer

from lightning_trainingkit.functional import _check
from lightning_trainingkit.nn.layers.small_resnet import SmallResNet

__all__ = ["build_model", "check_name", "check_options", "optimizer_class"]


def check_name(argument: str, value: Any, known: Iterable[str], rule: str) -> None:
    """Raise ValueError with the nearest names if ``value`` is unknown, TypeError if it is no string."""
    if not isinstance(value, str):
        raise TypeError(f"`{argument}` must be a name, got {value!r}. It is {rule}.")
    names = sorted(known)
    if value not in names:
        near = ", ".join(_check.nearest(value, names))
        raise ValueError(f"`{argument}` must be {rule}, got {value!r}. Nearest names: {near}.")


def check_options(argument: str, build: Callable[..., Any], options: dict[str, Any], *given: str) -> None:
    """Raise ValueError if ``build`` cannot be called with ``options`` and the arguments ``given``."""
    taken = [name for name in given if name in options]
    accepted = [name for name in inspect.signature(build).parameters if name not in given]
    if taken:
        raise ValueError(
            f"`{argument}` must not hold {taken[0]!r}, which is a separate argument. It may hold {accepted}."
        )
    try:
        inspect.signature(build).bind(**dict.fromkeys(given), **options)
    except TypeError as error:
        name = getattr(build, "__name__", build)
        raise ValueError(f"`{argument}` must fit {name}, got {options}: {error}. It may hold {accepted}.") from error


def build_model(name: str, num_classes: int, options: dict[str, Any]) -> nn.Module:
    """Build ``small_resnet``, a classifier of torchvision, or one of timm (``timm/NAME``) with a new head."""
    if name == "small_resnet":
        check_options("model_options", SmallResNet, options, "num_classes")
        return SmallResNet(num_classes, **options)
    if name.startswith("timm/"):
        try:
            import timm
        except ImportError as error:
            message = f"`model={name!r}` needs the package timm. Run: pip install 'lightning-trainingkit[recipes]'."
            raise ImportError(message) from error
        name = name.removeprefix("timm/")
        if not timm.is_model(name):
            check_name("model", f"timm/{name}", (f"timm/{known}" for known in timm.list_models()), "a model of timm")
        return _call(timm.create_model, name, num_classes, options)
    known = torchvision.models.list_models(module=torchvision.models)
    check_name("model", name, ["small_resnet", *known], "'small_resnet', a classifier of torchvision or 'timm/NAME'")
    return _call(torchvision.models.get_model, name, num_classes, options)


def _call(build: Callable[..., nn.Module], name: str, num_classes: int, options: dict[str, Any]) -> nn.Module:
    try:
        return build(name, num_classes=num_classes, **options)
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(
            f"`model_options` must be arguments of {name}, got {options}: {error}. For weights that were trained on "
            "other classes, build the model, replace its last layer, and pass it as `model`."
        ) from error


def optimizer_class(name: str) -> type[Optimizer]:
    """Find a class of ``torch.optim`` with weight decay, which ``ImageClassifier`` sets by parameter group."""
    known: dict[str, type[Optimizer]] = {
        name: found
        for name, found in vars(torch.optim).items()
        if inspect.isclass(found)
        and issubclass(found, Optimizer)
        and "weight_decay" in inspect.signature(found).parameters
    }
    check_name("optimizer", name, known, "a class of torch.optim with weight decay, spelled as there")
    return known[name]
