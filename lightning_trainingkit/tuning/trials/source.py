"""What builds the module and the data of a trial, in the trial's own process."""

import pickle
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from lightning_trainingkit._lightning import L, is_overridden
from lightning_trainingkit.tuning.trials.makers import make_maker
from lightning_trainingkit.tuning.trials.wrong_setup import WrongSetupError

__all__ = ["Source", "make_source"]

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
    make_module = make_maker("module", module)
    make_data = make_maker("data", data) if data is not None else None
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
