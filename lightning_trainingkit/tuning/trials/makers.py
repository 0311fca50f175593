"""What builds a module or a DataModule again from its arguments: its class, or a function."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn
from torch.utils._pytree import tree_leaves

from lightning_trainingkit._lightning import L

__all__ = ["make_maker", "parameters_of"]


class _Maker:
    """Builds the module or the data, from a class and its arguments, or from a function.

    Args:
        call: Class or function.
        given: Arguments.
        names: Names of the arguments that can be searched. Empty for an object that is used as it is.
        title: Name for reports.
        place: Python module of the class or function.
    """

    def __init__(self, call: Callable[..., Any], given: dict[str, Any], names: tuple[str, ...], title: str) -> None:
        self.call, self.given, self.names, self.title = call, given, names, title
        self.place: str = getattr(call, "__module__", "") or ""

    def __call__(self, values: Mapping[str, Any]) -> Any:
        return self.call(**{**self.given, **values})


class _AsItIs:
    """Gives an object that saved no arguments. What it keeps under their names tells it from others."""

    def __init__(self, value: Any) -> None:
        kept = {name: vars(value).get(name) for name in parameters_of(type(value))}
        self.given: dict[str, Any] = {
            name: each for name, each in kept.items() if isinstance(each, bool | int | float | str)
        }
        self.value, self.names, self.title = value, (), type(value).__name__
        self.place = type(value).__module__

    def __call__(self, values: Mapping[str, Any]) -> Any:
        return self.value


def make_maker(name: str, value: Any) -> Any:
    """Make what builds the module or the data.

    Args:
        name: ``"module"`` or ``"data"``, for errors.
        value: An object, its class, or for the module a function.

    Returns:
        Called with hyperparameters, it gives the module or the data. It has ``given``, ``names``, ``title`` and
        ``place``.

    Raises:
        TypeError: If the value is of another type.
        ValueError: If a module has not saved its hyperparameters, or if a trainable network is among them.
    """
    base = L.LightningModule if name == "module" else L.LightningDataModule
    if isinstance(value, type) and issubclass(value, base):
        parameters = parameters_of(value)
        return _Maker(value, _defaults(parameters), tuple(parameters), value.__name__)
    if isinstance(value, base):
        kind, saved = type(value), dict(value.hparams)
        parameters = parameters_of(kind)
        names = (*parameters, *(saved if _takes_more(kind) else ()))  # what `**kwargs` got is saved too
        arguments = {key: saved[key] for key in names if key in saved}
        missing = [key for key, each in parameters.items() if key not in saved and _may_differ(value, key, each)]
        if name == "module":
            _refuse_networks(kind, {**arguments, **{key: getattr(value, key, None) for key in missing}})
        if missing or (parameters and not arguments):
            if name == "data":
                return _AsItIs(value)
            raise ValueError(
                f"`module` must have saved its hyperparameters, got {kind.__name__} without "
                f"{', '.join(missing or parameters)}. Call `self.save_hyperparameters()` in its `__init__`, or give "
                "its class or a function."
            )
        return _Maker(kind, _defaults(parameters) | arguments, tuple(dict.fromkeys(names)), kind.__name__)
    if name == "module" and callable(value) and not isinstance(value, type):
        parameters = parameters_of(value)
        if isinstance(value, partial):
            _refuse_networks(value.func, {**dict(enumerate(value.args)), **value.keywords})
        return _Maker(value, _defaults(parameters), tuple(parameters), getattr(value, "__name__", type(value).__name__))
    raise TypeError(
        f"`{name}` must be a LightningModule of {L.__name__}, its class or a function, got "
        f"{value.__name__ if isinstance(value, type) else type(value).__name__}. Give one of them."
    )


def _refuse_networks(call: Any, arguments: Mapping[Any, Any]) -> None:
    """Refuse trainable networks among the arguments: each training would begin with their present weights."""
    for name, value in arguments.items():
        for each in tree_leaves(value):
            if isinstance(each, nn.Module) and any(parameter.requires_grad for parameter in each.parameters()):
                raise ValueError(
                    f"`module` must build its networks itself, got {call.__name__} with a {type(each).__name__} as "
                    f"`{name}`: each training would begin with its present weights. Write a function at the top of a "
                    "file that builds the network and the module, and give the function."
                )


def parameters_of(call: Any) -> dict[str, inspect.Parameter]:
    """The arguments of a class or a function that can be given by name."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    found: dict[str, inspect.Parameter] = {}
    # A `**kwargs` that a class passes on stands for the arguments of its base class.
    for each in call.__mro__ if isinstance(call, type) else (call,):
        if isinstance(call, type) and "__init__" not in vars(each):
            continue
        if each in (L.LightningModule, L.LightningDataModule):
            break
        parameters = inspect.signature(vars(each)["__init__"] if isinstance(call, type) else each).parameters
        own = list(parameters.items())[1:] if isinstance(call, type) else list(parameters.items())
        found |= {name: parameter for name, parameter in own if parameter.kind in kinds and name not in found}
        if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for _, parameter in own):
            break
    return found


def _takes_more(kind: type) -> bool:
    """Whether the constructor takes arguments of any name."""
    parameters = inspect.signature(kind).parameters.values()
    return any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters)


def _may_differ(value: Any, name: str, parameter: inspect.Parameter) -> bool:
    """Whether an object may have got another argument than the default. It knows if it keeps it under its name."""
    return parameter.default is inspect.Parameter.empty or vars(value).get(name, value) is not parameter.default


def _defaults(parameters: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    return {name: each.default for name, each in parameters.items() if each.default is not inspect.Parameter.empty}
