"""Follow a module's output through a step, to distinguish class scores from other outputs."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

__all__ = ["OutputUse"]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_CLASS_LOSSES = {"cross_entropy", "nll_loss", "multi_margin_loss", "kl_div"}
_CLASS_CALLS = {  # the position of `dim` among the arguments, and its default
    **dict.fromkeys(("softmax", "log_softmax", "softmin", "logsumexp", "argmax", "max", "amax"), (1, None)),
    **dict.fromkeys(("sort", "argsort"), (1, -1)),
    **dict.fromkeys(("topk", "kthvalue"), (2, -1)),
    "gumbel_softmax": (4, -1),
}
_OTHER_CALLS = _names(
    "hardsigmoid binary_cross_entropy binary_cross_entropy_with_logits "
    "multilabel_margin_loss multilabel_soft_margin_loss soft_margin_loss hinge_embedding_loss mse_loss l1_loss "
    "smooth_l1_loss huber_loss gaussian_nll_loss poisson_nll_loss cosine_embedding_loss margin_ranking_loss "
    "triplet_margin_loss triplet_margin_with_distance_loss linear bilinear conv1d conv2d conv3d conv_transpose1d "
    "conv_transpose2d conv_transpose3d matmul rmatmul mm addmm bmm baddbmm einsum tensordot normalize "
    "pairwise_distance cdist pdist dist cosine_similarity layer_norm batch_norm group_norm "
    "instance_norm multi_head_attention_forward scaled_dot_product_attention xlogy lgamma digamma"
)
_WEAK_CALLS = _names("sigmoid logsigmoid expit special_expit norm linalg_norm linalg_vector_norm")
_DIFFERENCES = {"sub", "rsub", "subtract"}
_FOLLOWED = _names(
    "view view_as reshape flatten unflatten squeeze unsqueeze getitem index_select gather take_along_dim select narrow "
    "chunk split tensor_split unbind cat concat concatenate stack hstack vstack to type type_as float double half "
    "bfloat16 cpu cuda detach clone contiguous get div truediv divide mul rmul multiply add radd sub rsub subtract neg "
    "exp log log1p expm1 clamp clip clamp_min clamp_max nan_to_num relu leaky_relu elu selu gelu silu mish softplus "
    "tanh hardtanh dropout masked_fill where mean sum permute transpose t swapaxes movedim expand expand_as repeat "
    "repeat_interleave tile flip broadcast_tensors"
)


class OutputUse(TorchFunctionMode):
    """A mode that records which functions a step calls on outputs ``(N, C)`` and on elementwise functions of them.

    - **Class scores** go to a softmax, argmax, cross-entropy or similar, along all ``C`` outputs.
    - **Other outputs** go to a sigmoid, a distance, a layer, or to a softmax of some of the ``C`` outputs.

    A call of the second kind decides, since averaged softmax would make its result wrong. In a step with a loss of
    class scores along all ``C`` outputs three calls do not decide: a sigmoid, a norm, and a softmax or similar of some
    of the outputs. No tensor's values are read.
    """

    def __init__(self) -> None:
        super().__init__()
        self.classes: str | None = None
        """Name of a call that takes outputs as class scores."""
        self.other: str | None = None
        """The step's use of outputs that are no class scores, such as ``"passes to sigmoid"``."""
        self.shape: torch.Size | None = None
        """Shape ``(N, C)`` of the first output."""
        self.inputs: set[int] = set()
        """``id`` of each tensor in the module's arguments."""
        self.read_before: set[int] = set()
        """``id`` of each tensor in the arguments of functions called before the module."""
        self.active = True
        """Whether outputs are still followed."""
        self._weak: str | None = None  # counts if the step has no loss of class scores
        self._difference: str | None = None
        self._loss = False
        self._known: dict[int, Tensor] = {}  # keeping the tensors reserves their ids
        self._paused = False

    def follow(self, output: Tensor, arguments: Any) -> None:
        """Follow an output ``(N, C)`` of a call with these arguments."""
        self.shape = output.shape if self.shape is None else self.shape
        self.inputs |= {id(each) for each in _tensors(arguments)}
        self._known[id(output)] = output

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Record nothing. If possible leave the stack of modes, which compiled code depends on."""
        on_top = torch.overrides._get_current_function_mode() is self  # type: ignore[no-untyped-call]
        if on_top:
            self.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        self._paused = True
        try:
            yield
        finally:
            self._paused = False
            if on_top:
                self.__enter__()  # type: ignore[no-untyped-call]

    def conclude(self) -> None:
        """Stop. A difference to another tensor counts if no call took the outputs as class scores."""
        self.active = False
        self._known.clear()
        self.other = self.other or (None if self._loss else self._weak) or (None if self.classes else self._difference)

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call the function, and record it."""
        kwargs = kwargs or {}
        if torch.compiler.is_compiling():  # torch traces a compiled function of the step through this mode
            return func(*args, **kwargs)
        result = func(*args, **kwargs)
        if self._paused:
            return result
        given = _tensors((args, kwargs))
        if not self._known:
            self.read_before |= {id(each) for each in given}
        elif followed := [each for each in given if id(each) in self._known]:
            self._note(func.__name__.strip("_"), followed[0], given, args, kwargs)
            if func.__name__.strip("_") in _FOLLOWED:
                self._known |= {id(each): each for each in _tensors(result) if each.is_floating_point()}
        return result

    def _note(
        self, name: str, output: Tensor, given: list[Tensor], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        assert self.shape is not None
        if name in _WEAK_CALLS:
            self._weak = self._weak or f"passes to {name}"
        elif name in _OTHER_CALLS:
            self.other = self.other or f"passes to {name}"
        elif name in _DIFFERENCES:
            others = [each for each in given if id(each) not in self._known and each.is_floating_point()]
            if any(each.shape == output.shape for each in others):
                self._difference = self._difference or "subtracts from another tensor"
        elif name in _CLASS_LOSSES or name in _CLASS_CALLS:
            count = _entries(name, output, self.shape[-1], args, kwargs)
            if count == self.shape[-1]:
                self.classes = self.classes or name
                self._loss = self._loss or name in _CLASS_LOSSES
            elif count:
                self._weak = self._weak or f"passes to {name}, {count} of {self.shape[-1]} at a time"


def _entries(name: str, output: Tensor, classes: int, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """Number of entries that a call takes as the scores of one sample. 0 if it works along another dimension."""
    if name in _CLASS_LOSSES:
        dim: Any = min(1, output.ndim - 1)
    else:
        position, default = _CLASS_CALLS[name]
        dim = kwargs.get("dim", kwargs.get("axis", args[position] if len(args) > position else default))
    if isinstance(dim, Sequence) and len(dim) == 1:
        (dim,) = dim
    if dim is None and "softm" in name:
        dim = 0 if output.ndim in (0, 1, 3) else 1  # as torch chooses it
    if output.ndim == 1 and "softm" not in name and output.numel() != classes:
        return 0  # one value for each sample of a batch
    if dim is None:
        return output.numel() if output.ndim and output.numel() == output.shape[-1] else 0
    last = isinstance(dim, int) and output.ndim > 0 and dim % output.ndim == output.ndim - 1
    return output.shape[-1] if last else 0


def _tensors(values: Any) -> list[Tensor]:
    return [each for each in tree_leaves(values) if isinstance(each, Tensor)]
