"""An operator that hands a tensor to Python code, in a compiled model too.

``torch.compile`` keeps the operator as one call in its graph: no graph break, and no guard on what the code does. The
operator declares that it changes a token, so that the calls stay in their order. The token lies on the CPU: a graph
that holds it is never replayed as a CUDA graph, which would leave the code out.
"""

from collections.abc import Callable
from itertools import count
from weakref import WeakValueDictionary

import torch
from torch import Tensor

__all__ = ["Listener", "send"]

_KEYS = count()
_LISTENERS: "WeakValueDictionary[int, Listener]" = WeakValueDictionary()


class Listener:
    """A function that receives tensors, known by a number.

    Args:
        receive: The function. It must not change the tensor.
    """

    def __init__(self, receive: Callable[[Tensor], None]) -> None:
        self.key = next(_KEYS)
        self.receive = receive
        _LISTENERS[self.key] = self


def send(listener: Listener, value: Tensor, token: Tensor) -> None:
    """Give a tensor to a listener.

    Args:
        listener: The listener.
        value: Any tensor.
        token: A tensor on the CPU. Calls with the same token stay in their order.
    """
    if torch.compiler.is_compiling():
        _send(value.detach(), token, listener.key)
    else:
        _receive(value.detach(), listener.key)


@torch.library.custom_op("trainingkit::send", mutates_args=("token",))
def _send(value: Tensor, token: Tensor, key: int) -> None:
    _receive(value, key)


@_send.register_fake
def _(value: Tensor, token: Tensor, key: int) -> None:
    return None


def _receive(value: Tensor, key: int) -> None:
    listener = _LISTENERS.get(key)
    # Activation checkpointing calls layers again in the backward pass.
    if listener is None or torch._C._current_graph_task_id() != -1:
        return
    with torch.inference_mode(False), torch.no_grad():
        listener.receive(value)
