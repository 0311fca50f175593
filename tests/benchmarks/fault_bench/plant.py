"""What a planted fault is, and how its grades are written."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .settings import MODELS, OPTIMIZERS, Settings

__all__ = [
    "EXPLODES",
    "NORMED",
    "PLAIN",
    "SAME_RATE",
    "TOO_HIGH",
    "VANISHES",
    "Plant",
    "by_optimizer",
    "change",
    "init",
    "kinds",
    "net",
    "rate",
    "untrained",
]

Change = Callable[[Settings], Settings]

PLAIN = ("mlp", "cnn")  # without a norm
NORMED = ("cnn_bn", "resnet")
SAME_RATE = frozenset({"learning_rate_too_low", "update_too_small"})
TOO_HIGH = frozenset({"learning_rate_too_high", "non_finite", "exploding_gradient", "exploding_activations"})
EXPLODES = frozenset({"exploding_activations", "exploding_gradient", "non_finite"})
VANISHES = frozenset({"vanishing_activations", "vanishing_gradient"})


@dataclass(frozen=True)
class Plant:
    """A fault.

    Args:
        expect: Kinds of finding that name its cause.
        grades: ``edge`` and ``extreme`` (further ones begin with these words) to the change of the settings.
        models: Models where the fault can be.
        optimizers: Optimizers where it can be.
        verify: What the run must show, in ``witness``. Faults without it must do harm.
        base: Change of the healthy twin.
    """

    expect: frozenset[str]
    grades: Mapping[str, Change]
    models: tuple[str, ...] = MODELS
    optimizers: tuple[str, ...] = OPTIMIZERS
    verify: str = ""
    base: Change = lambda settings: settings


def kinds(*names: str) -> frozenset[str]:
    return frozenset(names)


def change(**changes: object) -> Change:
    return lambda settings: settings.but(**changes)


def rate(factor: float) -> Change:
    return lambda settings: settings.times_rate(factor)


def init(*changes: tuple[str, float]) -> Change:
    return lambda settings: settings.but(init=changes)


def by_optimizer(what: str, sgd: float, adamw: float) -> Change:
    """Grade a fault for each optimizer, since AdamW bears what SGD does not."""

    def graded(settings: Settings) -> Settings:
        number = sgd if settings.optimizer == "sgd" else adamw
        if what == "rate":
            return settings.times_rate(number)
        if what == "weight decay":
            return settings.but(weight_decay=number)
        return settings.but(init=((what, number),))

    return graded


def net(name: str, **changes: object) -> Change:
    return lambda settings: settings.but(module=name, **changes)


def untrained(name: str, models: tuple[str, ...] = MODELS) -> Plant:
    return Plant(kinds("parameters_not_trained"), {"extreme": net(name)}, models, verify="not trained")
