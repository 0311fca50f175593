"""The command center as plain data: its sections and panels in order. The page and the W&B workspace draw these."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lightning_trainingkit.functional.metric_name import (
    is_learning_rate,
    is_of_step,
    named_mode,
    quantity_of,
    stage_of,
)

__all__ = [
    "Checks",
    "Curves",
    "Dots",
    "Gap",
    "Importance",
    "Panel",
    "Parallel",
    "Scores",
    "Searches",
    "Section",
    "Table",
    "command_center",
    "direction",
]


_KIT = (
    *("train/loss", "val/loss", "train/acc", "val/acc", "lr-*"),
    *("test/acc", "test/acc_member", "test/loss", "test/loss_member", "test/ece", "test/ece_member"),
)
_MEMBER = "_member"  # suffix for the mean over single members, views or masks; without it: their average
_TEST_TITLES = {"acc": "Test accuracy", "ece": "Calibration error"}
_FIRST = ("acc", "loss", "ece")
_PAIR = ("train", "val")


@dataclass(frozen=True)
class Curves:
    """A metric over the steps of training, one curve a run: logged values as dots, and their moving average.

    Args:
        metric: Name of the metric. With an asterisk at its end, each metric that begins so gets a panel.
        log_y: Whether the vertical axis starts as logarithmic, if all values are positive.
        smooth: Whether the metric is noisy, so that a moving average is drawn. Metrics without noise share one panel of
            the page if their curves are equal in all runs. Learning rates of parameter groups are an example.
    """

    metric: str
    log_y: bool = False
    smooth: bool = True


@dataclass(frozen=True)
class Gap:
    """The difference of two metrics, ``one - other``, at the steps of the metric that was logged less often."""

    title: str
    one: str
    other: str


@dataclass(frozen=True)
class Parallel:
    """Parallel coordinates: one line a run through its hyperparameters to the best value of a metric."""

    metric: str


@dataclass(frozen=True)
class Importance:
    """The share of a metric's variance over runs that each single hyperparameter explains."""

    metric: str


@dataclass(frozen=True)
class Dots:
    """One dot a run: a hyperparameter against the best value of a metric."""

    metric: str


@dataclass(frozen=True)
class Scores:
    """Test scores of all runs side by side: plain, and averaged over views, members or masks.

    Args:
        title: The measured quantity.
        metrics: Names of the metrics, all on one axis.
        better: ``"max"`` or ``"min"``.
    """

    title: str
    metrics: tuple[str, ...]
    better: str


@dataclass(frozen=True)
class Checks:
    """What the checks say about each run: initial loss, small sample, learning rate, curves and health."""


@dataclass(frozen=True)
class Searches:
    """What the tuning playbook says about each search for hyperparameters."""


@dataclass(frozen=True)
class Table:
    """All runs with state, best value, duration, and the settings that differ."""

    metric: str


Panel = Curves | Gap | Parallel | Importance | Dots | Scores | Checks | Searches | Table


@dataclass(frozen=True)
class Section:
    """Panels under one title.

    Args:
        title: Title of the section.
        panels: The panels in order.
        missing: Text of the section if no run has such metrics. Empty if more than metrics decides it.
        id: Name of the section in addresses, for a title that changes with the metrics.
    """

    title: str
    panels: tuple[Panel, ...]
    missing: str = ""
    id: str = ""


def direction(metric: str) -> str | None:
    """Return the better end of a metric, ``"min"`` or ``"max"``, if the metric's name says it, or None.

    Example:
        >>> direction("val/loss"), direction("val/acc"), direction("val/width.max"), direction("val/width")
        ('min', 'max', 'max', None)
    """
    return metric[-3:] if metric.endswith((".min", ".max")) else named_mode(metric)


def command_center(target: str = "val/loss", names: Iterable[str] | None = None) -> tuple[Section, ...]:
    """Describe all sections in the lecture's order: loss and accuracy curves first.

    The words in a metric's name decide on its panel: ``train_loss_epoch``, ``valid/f1``, ``valAcc``.

    Args:
        target: Metric by which runs are compared.
        names: Names of the runs' metrics. None takes the names that the kit's modules log.

    Example:
        >>> [section.title for section in command_center()]
        ['Loss', 'Accuracy', 'Learning rate', 'Checks', 'Hyperparameters', 'Averaging', 'Runs']
        >>> [panel.metric for panel in command_center(names=["val_loss", "train_loss", "val_acc"])[0].panels]
        ['train_loss', 'val_loss']

    References:
        CS231n, "Training neural networks", the slides on command centers: all curves on one plot, noisy losses as a
        scatter plot with a moving average.
    """
    known = sorted(_KIT if names is None else set(names), key=_order)
    trained = [name for name in known if stage_of(name) != "test"]
    losses = [name for name in trained if named_mode(name) == "min"]
    scores = [name for name in trained if named_mode(name) == "max"]
    rates = [name for name in known if is_learning_rate(name)]
    return (
        Section(
            "Loss",
            tuple(Curves(name, log_y=True) for name in losses),
            "No run has logged a loss, such as train_loss or val_loss.",
        ),
        Section(
            _scores_title(scores),
            tuple(_with_gaps(scores)),
            "No run has logged a score, such as val_acc.",
            id="accuracy",
        ),
        Section(
            "Learning rate",
            tuple(Curves(name, log_y=True, smooth=False) for name in rates),
            "No run has logged a learning rate. Lightning's LearningRateMonitor logs it.",
        ),
        Section(
            "Checks",
            (Checks(),),
            "No run has a training loss to judge, or a verdict of HealthReport or `trainingkit check --wandb`.",
        ),
        Section("Hyperparameters", (Searches(), Parallel(target), Importance(target), Dots(target))),
        Section(
            "Averaging" if any(quantity_of(name).endswith(_MEMBER) for name in known) else "Test",
            tuple(_tested([name for name in known if stage_of(name) == "test"])),
            "No run has logged a score or a loss with `test` in its name, such as test_acc.",
            id="averaging",
        ),
        Section("Runs", (Table(target),)),
    )


def _order(name: str) -> tuple[int, str, int, str]:
    """Sort key: the usual quantities first, and within a quantity training before validation."""
    quantity = quantity_of(name)
    place = _FIRST.index(quantity) if quantity in _FIRST else len(_FIRST)
    return place, quantity, ("train", "val", None, "test").index(stage_of(name)), name


def _scores_title(scores: Sequence[str]) -> str:
    accuracies = [any(word.startswith("acc") for word in quantity_of(name).split("_")) for name in scores]
    return "Accuracy" if all(accuracies) else "Accuracy and other scores" if any(accuracies) else "Scores"


def _with_gaps(scores: Sequence[str]) -> list[Panel]:
    """A panel for each score. After the scores of a quantity comes the gap between training and validation."""
    panels: list[Panel] = []
    for quantity, same in _by_quantity(scores).items():
        panels += [Curves(name) for name in same]
        train, val = (min((n for n in same if stage_of(n) == stage), key=_detail, default="") for stage in _PAIR)
        if train and val:
            title = "Training above validation"
            panels.append(Gap(title if quantity == "acc" else f"{title}: {quantity}", train, val))
    return panels


def _by_quantity(names: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(quantity_of(name), []).append(name)
    return found


def _detail(name: str) -> tuple[bool, str]:
    """Sort key: values of an epoch before values of a step, and the first loader before others."""
    return is_of_step(name), name


def _tested(names: Sequence[str]) -> list[Panel]:
    """A panel for each score and each loss of tests: the average first, then single members."""
    judged = _by_quantity(name for name in names if named_mode(name))
    panels: list[Panel] = []
    for quantity in dict.fromkeys(quantity.removesuffix(_MEMBER) for quantity in judged):
        same = (*judged.get(quantity, ()), *judged.get(f"{quantity}{_MEMBER}", ()))
        panels.append(Scores(_TEST_TITLES.get(quantity, f"Test {quantity}"), same, str(named_mode(same[0]))))
    return panels
