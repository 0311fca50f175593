"""A noisy forward in front of a layer's own, and rates that a schedule sets. Keys of the state dict never change."""

from types import MethodType
from typing import Any, ClassVar, Protocol

from torch import nn

from lightning_trainingkit.nn.structure.randomness import NOISE
from lightning_trainingkit.nn.structure.replaced_forward import take_away

__all__ = ["ForwardInFront", "NoisyForward", "Rated", "RatedAttribute"]


class Rated(Protocol):
    """A noise in a model, with a rate that a schedule sets."""

    rate: float

    def remove(self) -> None:
        """Take the noise away. The weights stay."""


class ForwardInFront:
    """A forward that stands in a layer's ``__dict__``, before the forward of its class.

    A subclass overrides ``__call__``, and calls ``self.inner``. It is copied and pickled with the layer, and a copy
    calls its own layer. The keys of the state dict do not change.

    Args:
        module: The layer.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.ran = False
        """Whether the layer was called. A layer whose weight a function uses directly is not."""
        self.active = True
        self._found = vars(module).get("forward")
        vars(module)["forward"] = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run in place of the layer's own forward."""
        raise NotImplementedError

    def inner(self, *args: Any, **kwargs: Any) -> Any:
        """Run the layer without this forward."""
        if self._found is not None:
            return self._found(*args, **kwargs)
        return type(self.module).forward(self.module, *args, **kwargs)

    @property
    def __wrapped__(self) -> Any:
        """The forward below, whose signature this one has."""
        return self._found or MethodType(type(self.module).forward, self.module)

    def remove(self) -> None:
        """Put back the forward below, also if a later replacement covers this one. The weights stay."""
        if self.active:
            self.active = False
            take_away(self.module, self, self._found)


class NoisyForward(ForwardInFront):
    """A forward with noise. A layer has one at most.

    A subclass overrides ``__call__``, sets ``self.ran``, and runs ``self.inner``, with noise where ``self.noisy``.

    Args:
        module: The layer.
        rate: Rate of the noise.
        by: Name of the surgery, for errors.
        within: Module whose mode counts, such as the block of a residual branch. None is the layer.
    """

    draws: ClassVar[bool] = True
    """Whether it draws random numbers in training mode. ``nn/structure/randomness`` reads this mark."""

    def __init__(self, module: nn.Module, rate: float, by: str, within: nn.Module | None = None) -> None:
        super().__init__(module)
        self.rate, self.by = rate, by
        self.within = module if within is None else within
        self.training = False
        """Whether the noise is on in eval mode too. The layer, which may be a BatchNorm, then stays in eval mode."""
        vars(module)[NOISE] = self

    @property
    def noisy(self) -> bool:
        """Whether the noise is on: with a positive rate, before ``remove``, in training mode of one of the two."""
        return self.active and self.rate > 0 and (self.training or self.within.training)

    def remove(self) -> None:
        """Take the noise away, also if a later replacement covers it. The weights stay."""
        if self.active:
            vars(self.module).pop(NOISE, None)
        super().remove()


class RatedAttribute:
    """A rate that a module reads from its own attributes, such as ``p`` of ``nn.Dropout``.

    The module does not work in place until ``remove``: with a rate of 0 that did no harm, with another one it may
    overwrite a softmax that the backward pass needs.

    Args:
        module: The module.
        attributes: Names of the attributes. All get the same rate.
    """

    def __init__(self, module: nn.Module, *attributes: str) -> None:
        self.module, self.attributes = module, attributes
        self._found = {name: getattr(module, name) for name in (*attributes, "inplace") if hasattr(module, name)}

    @property
    def rate(self) -> float:
        """The rate, as the module reads it."""
        return float(getattr(self.module, self.attributes[0]))

    @rate.setter
    def rate(self, value: float) -> None:
        for name in self.attributes:
            setattr(self.module, name, value)
        if "inplace" in self._found:
            setattr(self.module, "inplace", False)  # noqa: B010

    def remove(self) -> None:
        """Set the rates that the module had."""
        for name, value in self._found.items():
            setattr(self.module, name, value)
