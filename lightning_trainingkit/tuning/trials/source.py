"""What builds the module and the data of a trial, in the trial's own process."""

import inspect
import pickle
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn
from torch.utils._pytree import tree_leaves

from lightning_trainingkit._lightning import L, is_overridden
from lightning_trainingkit.tuning.trials.wrong_setup import WrongSetupError

__all__ = ["Source", "make_source", "parameters_of"]

_DATA = "data."


class Source:
    """Builds a module and its data from hyperparameters. It is pickled, and called in the process of each trial.

    Args:
        build: Called with the hyperparameters by keyword; returns the module, or the pair of module and data.
        given: Present values of what can be searched.
        names: What can be searched, by name; those of the data begin with ``data.``.
        describe: One line for reports, such as ``"Classifier on Digits"``.
        modules: Python modules that hold the user's classes, for the fork server to import.
    """

    def __init__(
        self,
        build: Callable[..., Any],
        *,
        given: Mapping[str, Any],
        names: tuple[str, ...],
        describe: str,
        modules: tuple[str, ...] = (),
    ) -> None:
        self.build = build
        self.given = dict(given)
        self.names = names
        self.describe = describe
        self.modules = modules

    def __call__(self, hyperparameters: Mapping[str, Any]) -> tuple[L.LightningModule, L.LightningDataModule | None]:
        """Build the module and the data. The data is None where the module has its own loaders."""
        built = self.build(dict(hyperparameters))
        module, data = built if isinstance(built, tuple) else (built, None)
        if not isinstance(module, L.LightningModule):
            raise TypeError(
                f"`module` must be a LightningModule of {L.__name__}, got {type(module).__name__}. Return the module, "
                "or the module and its DataModule."
            )
        check_train_set(module, data)
        return module, data


def make_source(module: Any, data: Any = None) -> Source:
    """Make the source of a search.

    Args:
        module: A LightningModule that called ``save_hyperparameters``, its class, or a function whose arguments are
            hyperparameters and which returns the module, or the pair of module and DataModule.
        data: A LightningDataModule, its class, or None for the module's own loaders.

    Returns:
        The source, which can be pickled.

    Raises:
        TypeError: If the module or the data is of another type, or cannot be pickled or found by name.
        ValueError: If the module has no saved hyperparameters, if a network is among them, or if there is no train
            set.
    """
    if isinstance(data, type) and not issubclass(data, L.LightningDataModule):
        raise TypeError(f"`data` must be a LightningDataModule of {L.__name__}, got {data!r}. Wrap its loaders in one.")
    if not isinstance(data, type) and data is not None and not isinstance(data, L.LightningDataModule):
        raise TypeError(
            f"`data` must be a LightningDataModule, got {type(data).__name__}. Write a LightningDataModule with "
            "`train_dataloader` and `val_dataloader`: each trial builds its own."
        )
    make_module = _maker("module", module)
    make_data = _maker("data", data) if data is not None else None
    given = make_module.given | {
        f"{_DATA}{name}": value for name, value in (make_data.given if make_data else {}).items()
    }
    names = (*make_module.names, *(f"{_DATA}{name}" for name in (make_data.names if make_data else ())))
    described = f"{make_module.title} on {make_data.title}" if make_data else make_module.title
    places = {each.place for each in (make_module, make_data) if each is not None}
    source = Source(
        partial(_built, make_module, make_data),
        given=given,
        names=names,
        describe=described,
        modules=tuple(sorted(places - {"__main__"})),
    )
    _check_pickled(source, module)
    if isinstance(module, type | L.LightningModule):
        holder = module if isinstance(module, type) else type(module)
        data_holder = data if isinstance(data, type) or data is None else type(data)
        if data_holder is None and not is_overridden("train_dataloader", _bare(holder), L.LightningModule):
            raise ValueError(
                f"`data` must be given where the module has no `train_dataloader`, got {holder.__name__} alone. Give a "
                "LightningDataModule."
            )
        if data_holder is not None:
            _check_loader(data if isinstance(data, L.LightningDataModule) else _bare(data_holder))
    return source


def check_train_set(module: L.LightningModule, data: L.LightningDataModule | None) -> None:
    """Raise ValueError if there is no train loader, in the data or in the module."""
    if data is not None:
        _check_loader(data)
    elif not is_overridden("train_dataloader", module, L.LightningModule):
        raise WrongSetupError(
            f"`data` must be given where the module has no `train_dataloader`, got {type(module).__name__} alone. Give "
            "a LightningDataModule."
        )


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


def _built(make_module: Any, make_data: Any, hyperparameters: Mapping[str, Any]) -> Any:
    """Data first, then the module: as LightningCLI."""
    of_data = {name[len(_DATA) :]: value for name, value in hyperparameters.items() if name.startswith(_DATA)}
    of_module = {name: value for name, value in hyperparameters.items() if not name.startswith(_DATA)}
    if make_data is None:
        return make_module({**of_module, **{f"{_DATA}{name}": value for name, value in of_data.items()}})
    data = make_data(of_data)
    built = make_module(of_module)
    if isinstance(built, tuple):
        raise TypeError("`data` must come from one place, got it from the function too. Give data=None.")
    return built, data


def _maker(name: str, value: Any) -> Any:
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


def _check_pickled(source: Source, module: Any) -> None:
    main = sys.modules["__main__"]
    kind = module if isinstance(module, type) or not isinstance(module, L.LightningModule) else type(module)
    named = getattr(kind, "__qualname__", type(kind).__name__)
    if getattr(kind, "__module__", None) == "__main__" and not hasattr(main, "__file__"):
        raise TypeError(
            f"`module` must be found by name in another process, got {named} of a notebook or of a prompt. Move it "
            "into a file, and import it."
        )
    try:
        pickle.dumps(source)
    except Exception as error:
        raise TypeError(
            f"`module` and `data` must be picklable, got {source.describe}: {error}. Write classes and functions at "
            "the top of a file, and keep open files and lambdas out of the arguments."
        ) from error


def _bare(kind: type) -> Any:
    return object.__new__(kind)


def _check_loader(data: L.LightningDataModule) -> None:
    if not is_overridden("train_dataloader", data, L.LightningDataModule):
        raise WrongSetupError(
            f"`data` must have a train set, got {type(data).__name__} without `train_dataloader`. Write it."
        )
