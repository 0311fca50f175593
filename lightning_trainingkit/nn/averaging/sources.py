"""What a source of passes is."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from lightning_trainingkit.nn.averaging.call_arguments import Arguments

__all__ = ["Around", "Call", "Source", "Together", "Viewing"]

Call = Callable[[nn.Module, Arguments], Any]
"""Calls a module with positional and named arguments."""


class Source(Protocol):
    """Where passes come from: an `Around`, or a `Viewing` of kind ``views``. The passes of several sources multiply."""

    @property
    def kind(self) -> str:
        """``members``, ``masks`` or ``views``: an average has at most one source of each."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """What each of its passes is, for errors and reports."""
        ...

    @property
    def weights(self) -> Sequence[float]:
        """Weight of each of its passes; their sum is 1."""
        ...


class Around(Source, Protocol):
    """A source that changes how the module is called."""

    def around(self, index: int, call: Call) -> Call:
        """Return the call that makes one of its passes of a plain call."""
        ...


@runtime_checkable
class Together(Around, Protocol):
    """A source that can make all its passes in one call."""

    vectorize: bool
    """Whether it must: an early exit, ``max_batch`` and random masks are refused."""

    def together(self, call: Call) -> Call:
        """Return a call with the outputs ``(K, N, C)`` of all passes of a weight above 0."""
        ...


class Viewing(Source, Protocol):
    """A source that changes the images."""

    @property
    def views(self) -> Sequence[Callable[[Tensor], Tensor]]:
        """One for each pass."""
        ...
