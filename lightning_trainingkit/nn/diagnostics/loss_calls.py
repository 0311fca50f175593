"""Record the calls of torch's losses inside a block, with what they were given."""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

__all__ = ["LossCall", "LossSpy"]

_LOSSES = {
    function: function.__name__
    for function in (
        functional.cross_entropy,
        functional.nll_loss,
        functional.binary_cross_entropy,
        functional.binary_cross_entropy_with_logits,
        functional.multi_margin_loss,
        functional.mse_loss,
        functional.l1_loss,
        functional.smooth_l1_loss,
        functional.huber_loss,
    )
}
_LOG_SOFTMAX = (functional.log_softmax, torch.log_softmax, Tensor.log_softmax)


@dataclass(frozen=True, eq=False)
class LossCall:
    """One call of a loss.

    Args:
        name: Name in ``torch.nn.functional``, or ``"log_softmax"``.
        input: Its first argument, with its autograd graph.
        target: Its second argument, None for ``log_softmax``.
        result: What it returned, with its autograd graph.
        options: Its further arguments.
    """

    name: str
    input: Tensor
    target: Tensor | None
    result: Tensor
    options: dict[str, Any] = field(default_factory=dict)


class LossSpy(TorchFunctionMode):
    """Record the calls of losses inside the block. They return what they return outside of it.

    Attributes:
        calls: The calls, in their order. A loss of torch that calls another one counts once.

    Example:
        >>> with LossSpy() as spy:
        ...     _ = functional.cross_entropy(torch.zeros(2, 10), torch.tensor([3, 1]))
        >>> [(call.name, tuple(call.input.shape), round(float(call.result), 4)) for call in spy.calls]
        [('cross_entropy', (2, 10), 2.3026)]
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[LossCall] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func in _LOSSES:
            given = inspect.signature(func).bind(*args, **kwargs).arguments
            options = {name: value for name, value in given.items() if name not in ("input", "target")}
            self.calls.append(LossCall(_LOSSES[func], given["input"], given["target"], result, options))
        elif func in _LOG_SOFTMAX:
            self.calls.append(LossCall("log_softmax", args[0] if args else kwargs["input"], None, result))
        return result
