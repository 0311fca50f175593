"""Stochastic depth on residual branches of a finished model: a branch is dropped, or skipped before it is computed."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import stochastic_depth

from lightning_trainingkit.nn.layers.noisy_forward import ForwardInFront, NoisyForward, RatedAttribute
from lightning_trainingkit.nn.structure.bypass import caches_bypassed
from lightning_trainingkit.nn.structure.modes import evaluating

__all__ = ["BranchDrop", "BranchSkip", "depth_rates"]

_SHAPES = 32  # whose outputs are remembered


def depth_rates(rate: float, count: int) -> list[float]:
    """Rates of stochastic depth by the linear decay law: ``rate * l / L`` for branch ``l`` of ``L``.

    Args:
        rate: Rate of the last branch.
        count: Number of branches ``L``.

    Example:
        >>> depth_rates(0.2, 4)
        [0.05, 0.1, 0.15, 0.2]

    References:
        Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016, arXiv:1603.09382.
    """
    return [round(rate * (place + 1) / count, 12) for place in range(count)]


class BranchDrop(NoisyForward):
    """Zero the output of a residual branch for some examples, as ``torchvision.ops.stochastic_depth`` does.

    Examples that keep the branch have it times ``1 / (1 - rate)``.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the branch, and drop it for some rows."""
        self.ran = True
        result = self.inner(*args, **kwargs)
        return _first(result, lambda x: stochastic_depth(x, self.rate, "row")) if self.noisy else result


class BranchSkip(NoisyForward):
    """Skip a residual branch for a whole batch, before it is computed. A kept branch has ``1 / (1 - rate)``.

    The branch's modules return zeros in the shape that they had in eval mode. The parameters of a skipped branch get
    gradients of zero, and not None, so that DDP works, and momentum and weight decay go on as in the paper.

    Args:
        modules: The modules of the branch, in the order of their calls. The last one's output is the branch.
        parameters: Module and name of each parameter that the branch reads.
        drops: Rates of the layers for stochastic depth in the branch. They are 0 until ``remove``.
        rate: Probability that the branch is skipped.
        by: Name of the surgery, for errors.
        within: The block. Its mode counts, since a BatchNorm at the end of the branch may be frozen in eval mode.
    """

    def __init__(
        self,
        modules: Sequence[nn.Module],
        parameters: Sequence[tuple[nn.Module, str]],
        drops: Sequence[RatedAttribute],
        rate: float,
        by: str,
        within: nn.Module | None = None,
    ) -> None:
        super().__init__(modules[-1], rate, by, within)
        self.parameters = list(parameters)
        self.drops = list(drops)
        for each in self.drops:
            each.rate = 0.0
        self.number: float | None = None
        """Draw from [0, 1) for the present training batch, the same on all ranks. None draws from torch's generator."""
        self._drawn = False
        self._blanks: dict[Any, Any] = {}
        self._parts = [_Part(each, self) for each in modules[:-1]]

    @property
    def skips(self) -> bool:
        """Whether this call of the branch is skipped. With a number it does not depend on earlier calls."""
        if not self.noisy:
            return False
        return self._drawn if self.number is None or not self.within.training else self.number < self.rate

    def draw(self) -> None:
        """Draw for one call of the branch."""
        if self.noisy and (self.number is None or not self.within.training):
            self._drawn = float(torch.rand(())) < self.rate

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the last module of the branch, or return zeros."""
        self.ran = True
        if not self._parts:
            self.draw()
        if self.skips:
            weights = dict.fromkeys(getattr(owner, name) for owner, name in self.parameters)
            trained = [weight for weight in weights if weight.requires_grad]
            zeros = _zeros(self, self._blanks, args, kwargs)
            return _first(zeros, lambda x: _NoGradient.apply(x, *trained)) if trained else zeros
        result = self.inner(*args, **kwargs)
        return _first(result, lambda x: x / (1 - self.rate)) if self.noisy else result

    def remove(self) -> None:
        """Take the noise away from all modules of the branch. The weights stay."""
        for part in self._parts:
            part.remove()
        for drop in self.drops:
            drop.remove()
        self.drops = []
        super().remove()


class _Part(ForwardInFront):
    """A module of a branch before the last one. The first of them draws."""

    def __init__(self, module: nn.Module, branch: BranchSkip) -> None:
        super().__init__(module)
        self._branch = branch
        self._blanks: dict[Any, Any] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self is self._branch._parts[0]:
            self._branch.draw()
        return _zeros(self, self._blanks, args, kwargs) if self._branch.skips else self.inner(*args, **kwargs)


class _NoGradient(torch.autograd.Function):
    """Pass a tensor on, and give parameters gradients of zero."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.mark_dirty(x)  # no view, since the forward may add to it in place
        ctx.places = [(_shape(each), each.device) for each in parameters]
        return x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return None, *(_make(shape, device) for shape, device in ctx.places)


def _first(result: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Change a tensor, or the first entry of a tuple, as attention returns it."""
    return (change(result[0]), *result[1:]) if isinstance(result, tuple) else change(result)


def _zeros(front: ForwardInFront, blanks: dict[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Make zeros in the shape of a module's output. A call in eval mode shows it, once for each shape of inputs."""
    tensors = [each for each in (*args, *kwargs.values()) if isinstance(each, Tensor)]
    device = tensors[0].device if tensors else torch.device("cpu")
    key = (device, torch.is_autocast_enabled(device.type), *((each.shape, each.dtype) for each in tensors))
    if key not in blanks:
        if len(blanks) >= _SHAPES:
            blanks.clear()
        with torch.no_grad(), evaluating(front.module), caches_bypassed():
            shown = front.inner(*args, **kwargs)
        blanks[key] = tuple(map(_shape, shown)) if isinstance(shown, tuple) else [_shape(shown)]
    made = [_make(each, device) for each in blanks[key]]
    return tuple(made) if isinstance(blanks[key], tuple) else made[0]


def _shape(value: Any) -> Any:
    return (value.shape, value.stride(), value.dtype) if isinstance(value, Tensor) else value


def _make(shape: Any, device: torch.device) -> Any:
    if not isinstance(shape, tuple) or not isinstance(shape[0], torch.Size):
        return shape
    size, stride, dtype = shape
    return torch.empty_strided(size, stride, dtype=dtype, device=device).zero_()
