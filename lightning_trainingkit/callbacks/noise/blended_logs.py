"""Log once what a training step logs in each of two calls."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from lightning_trainingkit._lightning import L
from lightning_trainingkit.callbacks.noise.blended_values import blend_values
from lightning_trainingkit.callbacks.noise.instance_patch import patched

__all__ = ["BlendedLogs"]


@dataclass
class _Call:
    name: str
    value: Any
    in_layer: bool
    args: tuple[Any, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)


class BlendedLogs:
    """Record the calls of ``self.log`` and ``self.log_dict``, and log their blends with the options of the first call.

    A value that a shared layer logs is logged as it is.

    Args:
        pl_module: The module whose calls are recorded.
        within_layer: Tells whether a layer of the model is running.
    """

    def __init__(self, pl_module: L.LightningModule, within_layer: Callable[[], bool]) -> None:
        self._module, self._within_layer = pl_module, within_layer
        self._calls: tuple[list[_Call], list[_Call]] = ([], [])

    @contextmanager
    def recording(self, call: int) -> Iterator[None]:
        """Record the first (0) or the second (1) call of the step."""

        def log(name: str, value: Any, *args: Any, **options: Any) -> None:
            graph = options.get("enable_graph", False)
            kept = value.detach() if isinstance(value, Tensor) and not graph else value
            self._calls[call].append(_Call(name, kept, self._within_layer(), args, options))

        with patched([(self._module, "log", log)]):  # `log_dict` calls it too
            yield

    def log(self, weight: float) -> None:
        """Log the blends.

        Raises:
            ValueError: If the two calls log different names.
        """
        first, second = self._calls
        twice = {call.name for call in second}
        once = [call for call in first if call.in_layer and call.name not in twice]
        first = [call for call in first if not call.in_layer or call.name in twice]
        names = [[call.name for call in calls] for calls in (first, second)]
        if names[0] != names[1]:
            only = sorted(set(names[0]) ^ set(names[1])) or names
            raise ValueError(
                f"`training_step` must log the same names for both targets of a blend, got {only} for one alone. "
                "Log them always, or use targets='soft', which calls the step once."
            )
        for call in once:
            self._module.log(call.name, call.value, *call.args, **call.options)
        for one, other in zip(first, second, strict=True):
            value = blend_values(one.value, other.value, weight, one.name, counts=True)
            self._module.log(one.name, value, *one.args, **one.options)
