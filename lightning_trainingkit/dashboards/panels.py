"""The command center as plain data: which panels of which metrics, in which order. Its renderers draw nothing else."""

from dataclasses import dataclass

from lightning_trainingkit.functional.metric_name import named_mode

__all__ = [
    "Curves",
    "Dots",
    "Gap",
    "Importance",
    "Panel",
    "Parallel",
    "Scores",
    "Section",
    "Table",
    "command_center",
    "direction",
]


@dataclass(frozen=True)
class Curves:
    """A metric over the steps of training, one curve a run: real values as dots, and their moving average.

    Args:
        metric: Its name; an asterisk at the end stands for several, each with a panel of its own.
        log_y: Whether the axis of the metric begins logarithmic, if all its values are positive.
        smooth: Whether it is noisy, so that a moving average is drawn.
    """

    metric: str
    log_y: bool = False
    smooth: bool = True


@dataclass(frozen=True)
class Gap:
    """The difference of two metrics, ``one - other``, at the steps of that which was logged less often."""

    title: str
    one: str
    other: str


@dataclass(frozen=True)
class Parallel:
    """One line a run through all its hyperparameters to the best value of a metric."""

    metric: str


@dataclass(frozen=True)
class Importance:
    """How much of a metric's variance over runs each hyperparameter explains by itself."""

    metric: str


@dataclass(frozen=True)
class Dots:
    """One dot a run: a hyperparameter against the best value of a metric."""

    metric: str


@dataclass(frozen=True)
class Scores:
    """Runs beside each other: plain, and averaged over views, members or masks.

    Args:
        title: What is measured.
        metrics: Its names, all on one axis.
        better: ``"max"`` or ``"min"``.
    """

    title: str
    metrics: tuple[str, ...]
    better: str


@dataclass(frozen=True)
class Table:
    """All runs with state, best value, duration, and what differs in their settings."""

    metric: str


Panel = Curves | Gap | Parallel | Importance | Dots | Scores | Table


@dataclass(frozen=True)
class Section:
    """Panels under one title."""

    title: str
    panels: tuple[Panel, ...]


def direction(metric: str) -> str | None:
    """Which end of a metric is the better one, ``"min"`` or ``"max"``, if its name says so.

    Example:
        >>> direction("val/loss"), direction("val/acc"), direction("val/width.max"), direction("val/width")
        ('min', 'max', 'max', None)
    """
    return metric[-3:] if metric.endswith((".min", ".max")) else named_mode(metric)


def command_center(target: str = "val/loss") -> tuple[Section, ...]:
    """All sections, in the lecture's order: loss and accuracy curves first.

    Args:
        target: The metric that runs are compared by.

    Example:
        >>> [section.title for section in command_center()]
        ['Loss', 'Accuracy', 'Learning rate', 'Hyperparameters', 'Averaging', 'Runs']

    References:
        CS231n, "Training neural networks", the slides on command centers: all curves on one plot, noisy losses as a
        scatter plot with a moving average.
    """
    return (
        Section("Loss", (Curves("train/loss", log_y=True), Curves("val/loss", log_y=True))),
        Section(
            "Accuracy",
            (
                Curves("train/acc"),
                Curves("val/acc"),
                Gap("Training above validation", "train/acc", "val/acc"),
            ),
        ),
        Section("Learning rate", (Curves("lr-*", smooth=False),)),
        Section("Hyperparameters", (Parallel(target), Importance(target), Dots(target))),
        Section(
            "Averaging",
            (
                Scores("Test accuracy", ("test/acc", "test/acc_member"), "max"),
                Scores("Negative log-likelihood", ("test/loss", "test/loss_member"), "min"),
                Scores("Calibration error", ("test/ece", "test/ece_member"), "min"),
            ),
        ),
        Section("Runs", (Table(target),)),
    )
