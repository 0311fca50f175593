"""Record the calls of torch's dropout functions that drop something."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from torch.nn import functional
from torch.overrides import TorchFunctionMode

__all__ = ["DROPOUTS", "DropoutSpy"]

DROPOUTS = {
    function: f"F.{function.__name__}"
    for function in (
        functional.dropout,
        functional.dropout1d,
        functional.dropout2d,
        functional.dropout3d,
        functional.alpha_dropout,
        functional.feature_alpha_dropout,
    )
}
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

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in DROPOUTS:
            call = inspect.signature(func).bind(*args, **kwargs)
            call.apply_defaults()
            if call.arguments["training"] and call.arguments["p"] > 0:
                self.names.append(DROPOUTS[func])
        elif func is _ATTENTION and (kwargs.get("dropout_p") or (args[4] if len(args) > 4 else 0.0)) > 0:
            self.names.append("F.scaled_dot_product_attention")
        return func(*args, **kwargs)
