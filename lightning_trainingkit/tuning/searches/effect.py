"""Which hyperparameters made a difference to the best value."""

from collections.abc import Sequence

from lightning_trainingkit.tuning.searches.isolation import Bin, isolate
from lightning_trainingkit.tuning.trials.result import Result
from lightning_trainingkit.tuning.trials.space import Space

__all__ = ["MANY", "best_and_worse", "without_effect"]

MANY = 0.1  # of the way from the best value to the median: a smaller difference does not count


def without_effect(space: Space, done: Sequence[Result], mode: str, noise: float | None) -> list[str]:
    """Hyperparameters with about the same best value in each part of their range."""
    reach = abs(float(done[len(done) // 2].value or 0.0) - float(done[0].value or 0.0))
    small = max(noise or 0.0, MANY * reach)
    return [name for name, bins in isolate(space, done, mode).items() if best_and_worse(bins, mode)[1] <= small]


def best_and_worse(bins: Sequence[Bin], mode: str) -> tuple[Bin, float]:
    """The best part of a range, and by how much another part is worse."""
    seen = [each for each in bins if each.best is not None]
    best = (min if mode == "min" else max)(seen, key=lambda each: each.best or 0.0)
    return best, max(abs((each.best or 0.0) - (best.best or 0.0)) for each in seen)
