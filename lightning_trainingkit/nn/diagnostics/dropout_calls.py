"""Record the calls of torch's functions that drop something, or switch their dropout off."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from torch.nn import functional
from torch.overrides import TorchFunctionMode

__all__ = ["DropoutSpy", "NoDropout"]

_DROPOUTS = (
    functional.dropout,
    functional.dropout1d,
    functional.dropout2d,
    functional.dropout3d,
    functional.alpha_dropout,
    functional.feature_alpha_dropout,
)
_ATTENTION = functional.scaled_dot_product_attention


class DropoutSpy(TorchFunctionMode):
    """Record the dropout functions that are called as in training inside the block. The results do not change.

    Attributes:
        names: Their names, in the order of the calls.

    Example:
        >>> import torch
        >>> x = torch.ones(2)
        >>> with DropoutSpy() as spy:
        ...     _ = functional.dropout(x, 0.5), functional.alpha_dropout(x, 0.5, training=False)
        >>> spy.names
        ['F.dropout']
    """

    _off = False

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _DROPOUTS:
            call = inspect.signature(func).bind(*args, **kwargs)
            call.apply_defaults()
            if call.arguments["training"] and call.arguments["p"] > 0:
                self.names.append(f"F.{func.__name__}")
                if self._off:
                    call.arguments["p"] = 0.0
                    args, kwargs = call.args, call.kwargs
        elif func is _ATTENTION and (kwargs.get("dropout_p") or (args[4] if len(args) > 4 else 0.0)) > 0:
            self.names.append(f"F.{func.__name__}")
            if self._off:
                args, kwargs = (*args[:4], *((0.0,) if len(args) > 4 else ()), *args[5:]), {**kwargs}
                kwargs.update(dict.fromkeys(kwargs.keys() & {"dropout_p"}, 0.0))
        return func(*args, **kwargs)


class NoDropout(DropoutSpy):
    """Let torch's functions drop nothing inside the block. The names of functions that would have are recorded.

    Example:
        >>> import torch
        >>> with NoDropout() as mode:
        ...     functional.dropout(torch.ones(3), 0.5)
        tensor([1., 1., 1.])
        >>> mode.names
        ['F.dropout']
    """

    _off = True
