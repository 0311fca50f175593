"""Choose the curves that tell a training's shape, by the names of its metrics."""

from collections.abc import Iterable, Mapping

from lightning_trainingkit.functional.metric_name import (
    is_learning_rate,
    is_of_step,
    named_mode,
    quantity_of,
    stage_of,
)

__all__ = ["choose_curves"]


def choose_curves(counts: Mapping[str, int]) -> dict[str, str]:
    """Choose the metrics that are the losses, the accuracies and the learning rate of a training.

    A quantity that both training and validation log goes before others, and ``loss`` before other losses. Of the values
    of steps and of epochs, those of steps are chosen if there are at least three in an epoch. Of several loaders, the
    first is chosen.

    Args:
        counts: Number of values of each metric, by name.

    Returns:
        Names of metrics, by ``train_loss``, ``val_loss``, ``train_acc``, ``val_acc`` and ``rate``, as far as logged.

    Example:
        >>> choose_curves({"train_loss_step": 90, "train_loss_epoch": 9, "val_loss": 9, "lr-SGD": 90})
        {'train_loss': 'train_loss_step', 'val_loss': 'val_loss', 'rate': 'lr-SGD'}
    """
    chosen: dict[str, str] = {}
    for kind, mode, usual in (("loss", "min", "loss"), ("acc", "max", "acc")):
        names = [name for name in counts if named_mode(name) == mode]
        train = {name: quantity_of(name) for name in names if stage_of(name) == "train"}
        train = train or {name: quantity_of(name) for name in names if stage_of(name) is None}
        val = {name: quantity_of(name) for name in names if stage_of(name) == "val"}
        both = set(train.values()) & set(val.values())
        known = both or set(train.values()) | set(val.values())
        if kind == "acc":
            known &= {usual}  # another score may have any scale
        if not known:
            continue
        quantity = usual if usual in known else min(known)
        epochs = max((counts[name] for name in val if val[name] == quantity), default=0)
        for stage, found in (("train", train), ("val", val)):
            if name := _preferred([name for name in found if found[name] == quantity], counts, epochs):
                chosen[f"{stage}_{kind}"] = name
    rates = sorted(name for name in counts if is_learning_rate(name))
    if rates:
        chosen["rate"] = rates[0]
    return chosen


def _preferred(names: Iterable[str], counts: Mapping[str, int], epochs: int) -> str | None:
    """The metric of epochs or of steps, and the first loader's."""
    ranked = sorted(
        names, key=lambda name: (is_of_step(name) and counts[name] < 3 * epochs, not is_of_step(name), name)
    )
    return ranked[0] if ranked else None
