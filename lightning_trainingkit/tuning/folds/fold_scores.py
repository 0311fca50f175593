"""What came of a cross-validation: scores by fold, means with intervals, and paired comparisons."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from lightning_trainingkit.functional.resampled import ResampledMean, resampled_mean
from lightning_trainingkit.tuning.verdict import Verdict

__all__ = ["Comparison", "ConfigurationScores", "CrossValidation"]


@dataclass(frozen=True, kw_only=True)
class ConfigurationScores:
    """The scores of one configuration.

    Args:
        hyperparameters: The hyperparameters that were given.
        state: ``"completed"`` on all folds; ``"pruned"`` after some; ``"failed"`` if a fold raised or diverged.
        values: The monitored value at the end of each training, by fold.
        score: Mean, standard deviation and interval. None with fewer than two folds, and of a failed configuration.
        checkpoints: Weights at the end of each training, by fold.
        error: Why the first fold failed.

    Example:
        >>> ConfigurationScores(hyperparameters={"lr": 0.1}, state="pruned", values={0: 0.9}, score=None).values[0]
        0.9
    """

    hyperparameters: Mapping[str, Any]
    state: Literal["completed", "pruned", "failed"]
    values: Mapping[int, float]
    score: ResampledMean | None
    checkpoints: Mapping[int, str] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two configurations on the same folds.

    Args:
        one: Number of the first configuration.
        other: Number of the second configuration.
        folds: Number of folds that both have.
        difference: Value of the first minus value of the second, with its interval and p-value.
        better: Number of the better configuration, None if the interval holds 0.

    Example:
        >>> difference = resampled_mean([0.1, 0.2, 0.15], 1 / 3)
        >>> found = Comparison(one=0, other=1, folds=3, difference=difference, better=None)
        >>> f"{found.difference.mean:.2f}"
        '0.15'
    """

    one: int
    other: int
    folds: int
    difference: ResampledMean
    better: int | None


@dataclass(frozen=True, kw_only=True)
class CrossValidation(Verdict):
    """The answer of ``cross_validate``.

    Args:
        monitor: The metric.
        mode: Whether low (``"min"``) or high (``"max"``) values are good.
        folds: Folds of one repeat.
        repeats: Number of repeats.
        configurations: The scores of each configuration, in the order in which they were given.
        best: Number of the configuration with the best mean, among those with all folds. None if there is none.
        trained: Number of trainings.

    Example:
        >>> scores = ConfigurationScores(
        ...     hyperparameters={}, state="completed", values={0: 0.8, 1: 0.9}, score=resampled_mean([0.8, 0.9], 1 / 2)
        ... )
        >>> found = CrossValidation(
        ...     step="cross_validation", verdict="pass", message="val/acc 0.85.", monitor="val/acc", mode="max",
        ...     folds=2, repeats=1, configurations=(scores,), best=0, trained=2,
        ... )
        >>> f"{found.mean:.3f}", f"{found.std:.3f}"
        ('0.850', '0.071')
    """

    monitor: str
    mode: str
    folds: int
    repeats: int
    configurations: tuple[ConfigurationScores, ...]
    best: int | None
    trained: int

    @property
    def mean(self) -> float:
        """The mean of the best configuration."""
        return self._score.mean

    @property
    def std(self) -> float:
        """The standard deviation of the best configuration over folds."""
        return self._score.std

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the best configuration's mean, which counts with the overlap of the training sets."""
        return self._score.low, self._score.high

    @property
    def checkpoints(self) -> list[str]:
        """The weights of the best configuration's models, one for each fold, ready for ``EnsembleAverage``."""
        return [] if self.best is None else list(self.configurations[self.best].checkpoints.values())

    def compare(self, one: int, other: int) -> Comparison:
        """Compare two configurations on the folds that both have, paired, by the corrected resampled t-test.

        Args:
            one: Number of the first configuration.
            other: Number of the second configuration.

        Raises:
            ValueError: If they have fewer than two folds in common.
        """
        first, second = self.configurations[one].values, self.configurations[other].values
        common = sorted(first.keys() & second.keys())
        if len(common) < 2:
            raise ValueError(
                f"`one` and `other` must have two folds in common, got {len(common)} for configurations {one} and "
                f"{other}. Compare configurations that were trained."
            )
        difference = resampled_mean([first[fold] - second[fold] for fold in common], 1 / self.folds)
        better = None
        if difference.high < 0 or difference.low > 0:
            better = one if (difference.mean < 0) == (self.mode == "min") else other
        return Comparison(one=one, other=other, folds=len(common), difference=difference, better=better)

    def rows(self) -> list[dict[str, Any]]:
        """A row for each configuration, for ``experiments.print_table``. The best mean is first."""
        sign = 1 if self.mode == "min" else -1
        rows = []
        for number, each in enumerate(self.configurations):
            said = ", ".join(f"{name}={value}" for name, value in each.hyperparameters.items()) or "as given"
            score = each.score
            row: dict[str, Any] = {
                "configuration": f"{number} ({said})",
                "state": each.state,
                "folds": len(each.values),
            }
            row |= {self.monitor: None if score is None else score.mean, "std": None if score is None else score.std}
            row["95 %"] = None if score is None else f"± {score.half:.2g}"
            rows.append(row)
        order = {"completed": 0, "pruned": 1, "failed": 2}
        return sorted(rows, key=lambda row: (order[row["state"]], sign * (row[self.monitor] or 0.0)))

    @property
    def _score(self) -> ResampledMean:
        found = None if self.best is None else self.configurations[self.best].score
        if found is None:
            raise ValueError("`configurations` must hold one with all folds, got none. Read `message`.")
        return found
