"""Find the metrics of a module, and watch their updates."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import nn
from torchmetrics import Metric

from lightning_trainingkit.callbacks.noise.instance_patch import patched

__all__ = ["find_parts", "on_update"]

T = TypeVar("T", bound=nn.Module)


def find_parts(module: nn.Module, kind: type[T]) -> list[T]:
    """Return the modules of one kind inside of a module, also those in plain lists, tuples and dicts of its layers.

    Example:
        >>> net = nn.Sequential(nn.ReLU())
        >>> net[0].extra = {"held": [nn.Tanh()]}
        >>> find_parts(net, nn.Tanh)
        [Tanh()]
    """
    found: dict[int, T] = {}  # by id: the hash of a metric changes with its state
    seen: set[int] = set()

    def look(value: Any) -> None:
        if isinstance(value, nn.Module | Mapping | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            if isinstance(value, kind):
                found[id(value)] = value
            parts = vars(value) if isinstance(value, nn.Module) else value
            for part in parts.values() if isinstance(parts, Mapping) else parts:
                look(part)

    look(module)
    return list(found.values())


@contextmanager
def on_update(metrics: list[Metric], see: Callable[[Metric, tuple[Any, ...], dict[str, Any]], None]) -> Iterator[None]:
    """Call ``see`` before each update of a metric, and before its forward, which resets the state first."""

    def watched(metric: Metric, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            see(metric, args, kwargs)
            return call(*args, **kwargs)

        return wrapper

    keys = ("update", "_call_impl")
    with patched([(each, key, watched(each, getattr(each, key))) for each in metrics for key in keys]):
        yield
