"""The interface of a source of passes."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from lightning_trainingkit.nn.averaging.call_arguments import Arguments

__all__ = ["Around", "Call", "Source", "Together", "Viewing"]

Call = Callable[[nn.Module, Arguments], Any]
"""Calls a module with positional and named arguments."""


class Source(Protocol):
    """A source of passes: an `Around`, or a `Viewing` of kind ``views``. The passes of several sources multiply."""

    @property
    def kind(self) -> str:
        """``members``, ``masks`` or ``views``. An average has at most one source of each kind."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """Name of each pass, for errors and reports."""
        ...

    @property
    def weights(self) -> Sequence[float]:
        """Weight of each pass. The sum is 1."""
        ...


class Around(Source, Protocol):
    """A source that changes how the module is called."""

    def around(self, index: int, call: Call) -> Call:
        """Wrap a plain call into the call of one pass."""
        ...


@runtime_checkable
class Together(Around, Protocol):
    """A source that can make all its passes in one call."""

    vectorize: bool
    """Whether it must make all passes in one call. Early exits, ``max_batch`` and random masks are then refused."""

    def together(self, call: Call) -> Call:
        """Return a call with the outputs ``(K, N, C)`` of all passes with a weight above 0."""
        ...


class Viewing(Source, Protocol):
    """A source that changes the images."""

    @property
    def views(self) -> Sequence[Callable[[Tensor], Tensor]]:
        """One transform of the images for each pass."""
        ...
