"""Refuse to join a study that has other settings."""

from collections.abc import Mapping
from typing import Any

__all__ = ["check_same"]


def check_same(study: str, kept: Mapping[str, Any], mine: Mapping[str, Any]) -> None:
    """Compare this worker's settings with the stored ones. Settings that only the storage has are not compared.

    Args:
        study: Name of the study.
        kept: The stored settings by name, plain values or dicts of them.
        mine: This worker's settings.

    Raises:
        ValueError: If one differs. It names the first one.
    """
    for name, value in mine.items():
        old = kept.get(name)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            keys = dict.fromkeys((*old, *value))
            check_same(study, *({f"{name}.{key}": each.get(key) for key in keys} for each in (old, value)))
        elif old != value:
            raise ValueError(
                f"`{name}` must be the one that {study!r} has in the storage, {old!r}, got {value!r}. Give the study "
                "another name, or the stored value."
            )
