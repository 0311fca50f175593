"""Record what the gradients and the updates of parameters look like, without waiting for the device."""

from collections.abc import Iterable, Mapping, Sequence
from math import nan, sqrt

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.gradient_statistics import GradientSummary, norms, sign_agreement
from lightning_trainingkit.nn.diagnostics.parameter_sample import ParameterSample

__all__ = ["GradientRecorder"]

_SQUARED = ("gradient", "clipped", "weight", "update")
_ROWS = (*_SQUARED, "zeros", "agreement", "descent")


class GradientRecorder:
    """Record gradients before an optimizer's step, and the real change of the parameters after it.

    The order in a recorded step: backward, ``record_gradients()``, clipping, ``record_gradients(clipped=True)``, the
    optimizer's step, ``record_update()``. Results stay on the device until ``summaries()``.

    - **Norms of gradients** are exact, in float32.
    - **All other numbers** come from a fixed sample of whole units (rows) of each parameter. Its buffers are made once.
    - **Parameters without a gradient** (frozen, unused) are left out of that step.
    - **Shared parameters** count once, under their first name. Parameters without elements are left out.
    - **Sparse gradients** are made dense. Complex numbers count as pairs of real ones.

    Args:
        parameters: Name to parameter.
        units: Names of the weights whose first dimension counts units, for ``sign_agreement``. By default all with two
            or more dimensions; ``unit_weights`` finds the weights of linear and convolutional layers.
        sample: Number of elements to sample of each parameter, about. Smaller parameters are taken whole.

    Raises:
        ValueError: If there is no parameter, or a lazy one. If ``sample`` is below 1.
        TypeError: If a parameter is sharded over ranks (a DTensor).

    Example:
        >>> net = nn.Linear(4, 2)
        >>> recorder = GradientRecorder(dict(net.named_parameters()))
        >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        >>> net(torch.ones(8, 4)).sum().backward()
        >>> recorder.record_gradients()
        >>> optimizer.step()
        >>> recorder.record_update()
        >>> summary = recorder.summaries()["weight"]
        >>> round(summary.gradient_norm, 3), summary.sign_agreement, round(summary.descent, 3)
        (22.627, 1.0, 1.0)
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], *, units: Iterable[str] | None = None, sample: int = 65536
    ) -> None:
        self._parameters: list[nn.Parameter] = []
        self._names: list[str] = []
        for name, parameter in parameters.items():
            _refuse(name, parameter)
            if parameter.numel() and not any(parameter is each for each in self._parameters):
                self._names.append(name)
                self._parameters.append(parameter)
        if not self._parameters:
            raise ValueError(
                "`parameters` must hold a parameter with elements, got none. Give dict(module.named_parameters())."
            )
        self._sample = _check.integer("sample", sample, "Leave it out for the default.", least=1)
        wanted = None if units is None else set(units)
        self._units = [
            parameter.dim() > 1 and parameter[0].numel() > 1 and (wanted is None or name in wanted)
            for name, parameter in zip(self._names, self._parameters, strict=True)
        ]
        self._buffers: ParameterSample | None = None
        self._active: list[int] = []
        self._ready = False
        self._pending: list[tuple[str, list[int], Tensor]] = []
        self.reset()

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The recorded parameters by name, each once."""
        return dict(zip(self._names, self._parameters, strict=True))

    def reset(self) -> None:
        """Forget all recorded steps."""
        self._totals: Tensor | None = None  # made on the device of the first gradients
        self._counts = {row: [0] * len(self._names) for row in _ROWS}
        self._pending = []

    def discard(self) -> None:
        """Forget the gradients of a step that was not made, such as one that an AMP scaler skipped."""
        self._pending, self._active, self._ready = [], [], False

    @torch.no_grad()
    def record_gradients(self, clipped: bool = False, *, scale: float = 1.0) -> None:
        """Record the gradients, and keep the sampled parameters for ``record_update``.

        Args:
            clipped: Record the norm after clipping, and nothing else.
            scale: Factor that the gradients still hold, such as an AMP scaler's where a fused optimizer unscales.
        """
        active = [number for number, parameter in enumerate(self._parameters) if parameter.grad is not None]
        if not clipped:
            self._commit()
            self._active, self._ready = active, True
        if not active:
            return
        gradients = [_dense(self._parameters[number].grad) for number in active]
        length = norms(gradients) / scale
        if clipped:
            self._pending.append(("clipped", active, length))
            return
        if self._buffers is None:
            self._buffers = ParameterSample([_dense(each) for each in self._parameters], self._sample)
        sample = self._buffers
        sample.keep("gradient", active, gradients)
        sample.keep("before", active, [_dense(self._parameters[number]) for number in active])
        views = sample.views("gradient", active)
        nonzero = torch.stack([torch.count_nonzero(each) for each in views])
        self._pending.append(("gradient", active, length))
        self._pending.append(("zeros", active, 1 - nonzero / nonzero.new_tensor([each.numel() for each in views])))
        rows = [(number, each) for number, each in zip(active, views, strict=True) if self._units[number]]
        if rows:
            agreement = torch.stack([sign_agreement(each).to(length.device) for _, each in rows])
            self._pending.append(("agreement", [number for number, _ in rows], agreement))

    @torch.no_grad()
    def record_update(self) -> None:
        """Record how far the optimizer's step has moved the parameters that had a gradient.

        Raises:
            RuntimeError: If ``record_gradients`` was not called before the step.
        """
        if not self._ready:
            raise RuntimeError("`record_update` must follow `record_gradients` of the same step. Call that one first.")
        self._ready = False
        active, sample = self._active, self._buffers
        if sample is not None and active:
            down = sample.descent(active, [_dense(self._parameters[number]) for number in active])
            gradients = sample.views("gradient", active)
            weight, update, gradient = norms(sample.views("before", active)), norms(down), norms(gradients)
            along = torch.stack([torch.dot(g.reshape(-1), d.reshape(-1)) for g, d in zip(gradients, down, strict=True)])
            lengths = update.double() * gradient  # the product of two small numbers is zero in float32
            cosine = torch.where(lengths == 0, 0.0, along / lengths)
            whole = weight.new_tensor([sample.shares[number] for number in active]).rsqrt()
            self._pending += [("weight", active, weight * whole), ("update", active, update * whole)]
            self._pending.append(("descent", active, cosine))
        self._commit()

    def summaries(self) -> dict[str, GradientSummary]:
        """Read the statistics of the steps since the last ``reset``, in one transfer from the device.

        Returns:
            Name to summary, for every parameter.
        """
        self._commit()
        totals = {row: [0.0] * len(self._names) for row in _ROWS}
        if self._totals is not None:
            totals = dict(zip(_ROWS, self._totals.tolist(), strict=True))
        return {name: self._summary(number, totals) for number, name in enumerate(self._names)}

    def _summary(self, number: int, totals: Mapping[str, Sequence[float]]) -> GradientSummary:
        def mean(row: str) -> float | None:
            count = self._counts[row][number]
            return totals[row][number] / count if count else None

        def root(row: str) -> float | None:
            square = mean(row)
            return square if square is None else sqrt(square)

        gradient, zeros = root("gradient"), mean("zeros")
        return GradientSummary(
            elements=self._parameters[number].numel(),
            steps=self._counts["gradient"][number],
            gradient_norm=nan if gradient is None else gradient,
            clipped_norm=root("clipped"),
            weight_norm=root("weight"),
            update_norm=root("update"),
            zeros=nan if zeros is None else zeros,
            sign_agreement=mean("agreement"),
            descent=mean("descent"),
        )

    def _commit(self) -> None:
        """Add what was recorded to the totals."""
        for row, numbers, values in self._pending:
            if self._totals is None:
                kind = torch.float32 if values.device.type == "mps" else torch.float64  # squares of small norms
                self._totals = torch.zeros(len(_ROWS), len(self._names), dtype=kind, device=values.device)
            added = values.to(self._totals.dtype)
            added = added.square() if row in _SQUARED else added
            total = self._totals[_ROWS.index(row)]
            if len(numbers) == len(self._names):
                total += added
            else:
                total[torch.tensor(numbers, device=total.device)] += added
            for number in numbers:
                self._counts[row][number] += 1
        self._pending = []


def _dense(tensor: Tensor | None) -> Tensor:
    """The tensor as real numbers, each of them stored."""
    assert tensor is not None
    dense = tensor if tensor.layout == torch.strided else tensor.to_dense()
    return torch.view_as_real(dense) if dense.is_complex() else dense


def _refuse(name: str, parameter: nn.Parameter) -> None:
    if is_lazy(parameter):
        raise ValueError(
            f"`parameters` must have a shape, got the lazy parameter {name!r}. Run one batch through the model first."
        )
    if hasattr(parameter, "full_tensor"):  # a DTensor
        raise TypeError(
            f"`parameters` must be whole on each rank, got {name!r}, which is sharded. Use a single device or DDP."
        )
