"""What a study must have been searched with, kept in the study, so that no worker joins another search by its name."""

from collections.abc import Mapping
from typing import Any

from lightning_trainingkit.tuning.cli_config import is_plain, plain
from lightning_trainingkit.tuning.source import Source
from lightning_trainingkit.tuning.storage import patient
from lightning_trainingkit.tuning.study import Study

__all__ = ["SETTINGS", "agree", "fixed_values"]

SETTINGS = "trainingkit_search"  # the study's attribute
_FREE = ("sections",)  # may differ between workers


def fixed_values(source: Source, searched: Any = ()) -> dict[str, Any]:
    """The arguments that are not searched, as JSON holds them, without objects: by these a study is known again."""
    return {name: plain(each) for name, each in source.given.items() if name not in searched and is_plain(each)}


def agree(study: Study, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Write the settings to a new study, or compare them with the stored ones.

    Returns:
        The stored settings.

    Raises:
        ValueError: If a setting differs.
    """
    stored = patient(lambda: study.optuna.user_attrs).get(SETTINGS)
    if stored is None:
        patient(lambda: study.optuna.set_user_attr(SETTINGS, dict(settings)))
        return dict(settings)
    for name in sorted({*stored, *settings} - set(_FREE)):
        old, new = stored.get(name), settings.get(name)
        if old != new:
            if isinstance(old, Mapping) and isinstance(new, Mapping):
                key = next(key for key in {**old, **new} if old.get(key) != new.get(key))
                name, old, new = f"{name}.{key}", old.get(key), new.get(key)
            raise ValueError(
                f"`{name}` must be the study's, {old!r}, got {new!r}. Give the study {study.name!r} its old settings, "
                "or another name."
            )
    return dict(stored)
