"""What was seen of a training: its losses, and a look inside at some steps."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import fmean, median

from lightning_trainingkit.functional.gradient_statistics import GradientSummary
from lightning_trainingkit.functional.statistics import ActivationSummary

__all__ = ["Look", "Losses", "Observation"]


@dataclass(frozen=True)
class Look:
    """One look inside, at one optimizer step.

    Args:
        step: Number of optimizer steps before it.
        loss: The loss of this step.
        activations: Layer name to what its output was.
        gradients: Parameter name to its gradient and its update.
        spreads: Weight name to the spread between its units, as ``spread_between_units`` gives it.
        rates: The learning rate of each parameter group.
    """

    step: int
    loss: float
    activations: dict[str, ActivationSummary]
    gradients: dict[str, GradientSummary]
    spreads: dict[str, float]
    rates: list[float]


class Losses:
    """The losses of the first and of the latest steps, in constant memory.

    Attributes:
        count: Number of losses.
        first: The first ones, at most ``keep``.
        latest: The latest ones, at most ``keep``.
    """

    def __init__(self, keep: int = 500) -> None:
        self.count = 0
        self.first: list[float] = []
        self.latest: deque[float] = deque(maxlen=keep)
        self._keep = keep

    def extend(self, values: Iterable[float]) -> None:
        """Append losses in their order."""
        for value in values:
            self.count += 1
            if len(self.first) < self._keep:
                self.first.append(value)
            self.latest.append(value)

    @property
    def start(self) -> float:
        """Mean of the first three losses."""
        return fmean(self.first[:3])

    @property
    def end(self) -> float:
        """Median of the latest tenth of the losses, of at least five and at most 100."""
        number = min(max(5, self.count // 10), 100)
        return median(list(self.latest)[-number:])


@dataclass
class Observation:
    """All that the rules of the health report judge by.

    Args:
        losses: The losses.
        looks: The looks inside, in their order; the first is of the first step.
        chance: Loss of outputs that say nothing about the target, None where it is unknown.
        chance_of_part: The same for the only known loss of several, None where it is unknown.
        penalty_share: Share of the first loss that does not depend on the images, None where it is small or unknown.
        output_size: Root mean square of the outputs that the loss got in the first step, None where it is unknown.
        input_size: Largest root mean square of an input tensor, None where it is unknown.
        alone: Whether one optimizer lowers one loss, so that the loss should fall.
        resumed: Whether the training began before this fit.
        loss_factor: Factor of the known loss in the returned one, None where it is unknown.
        weight_decay: Largest weight decay of the optimizer.
        momentum: Largest momentum of the optimizer, None where it has none.
        eps: Largest ``eps`` of the optimizer, None where it has none.
        clip: The Trainer's ``gradient_clip_val``.
        dropout: Layer name to its rate, for the dropout layers.
        progress: Share of the planned steps that were made, None where it is unknown.
        epochs: Number of finished epochs.
        final: Whether the fit is over.
    """

    losses: Losses = field(default_factory=Losses)
    looks: list[Look] = field(default_factory=list)
    chance: float | None = None
    chance_of_part: float | None = None
    penalty_share: float | None = None
    output_size: float | None = None
    input_size: float | None = None
    alone: bool = True
    resumed: bool = False
    loss_factor: float | None = None
    weight_decay: float = 0.0
    momentum: float | None = None
    eps: float | None = None
    clip: float | None = None
    dropout: dict[str, float] = field(default_factory=dict)
    progress: float | None = None
    epochs: int = 0
    final: bool = False
