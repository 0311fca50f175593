"""What all workers of a study must agree on: the first one keeps it in the study, and others are compared with it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lightning_trainingkit.tuning.trials.storage import patient

if TYPE_CHECKING:
    import optuna

__all__ = ["keep_or_refuse", "refuse_others"]


def keep_or_refuse(
    study: "optuna.Study", key: str, mine: Mapping[str, Any], *, free: Sequence[str] = (), again: bool = False
) -> dict[str, Any]:
    """Keep values in a study that has none, or compare them with the kept ones.

    Args:
        study: Optuna's study.
        key: The study's attribute.
        mine: Numbers, texts, and dicts of them, by name.
        free: Names of values that may differ.
        again: Whether to keep them in any case.

    Returns:
        The kept values.

    Raises:
        ValueError: If a value differs.
    """
    kept = patient(lambda: study.user_attrs).get(key)
    if kept is None or again:
        patient(lambda: study.set_user_attr(key, dict(mine)))
        return dict(mine)
    refuse_others(study.study_name, kept, mine, free)
    return dict(kept)


def refuse_others(study: str, kept: Mapping[str, Any], mine: Mapping[str, Any], free: Sequence[str] = ()) -> None:
    """Refuse values that are not the kept ones.

    Args:
        study: Name of the study.
        kept: The kept values.
        mine: The values of this worker.
        free: Names of values that may differ.

    Raises:
        ValueError: If a value differs.

    Example:
        >>> refuse_others("demo", {"epochs": 2, "fixed": {"width": 8}}, {"epochs": 2, "fixed": {"width": 9}})
        Traceback (most recent call last):
        ValueError: `fixed.width` must be the one that 'demo' has in the storage, 8, got 9. Give the study another...
    """
    for name in dict.fromkeys((*mine, *kept)):
        old, new = kept.get(name), mine.get(name)
        if name in free or old == new:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            old, new = ({f"{name}.{key}": value for key, value in each.items()} for each in (old, new))
            refuse_others(study, old, new)
            continue
        raise ValueError(
            f"`{name}` must be the one that {study!r} has in the storage, {old!r}, got {new!r}. Give the study another "
            "name, or the stored value."
        )
