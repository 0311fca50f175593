"""What a study must have been searched with, kept in the study, so that no worker joins another search by its name."""

from collections.abc import Mapping
from typing import Any

from lightning_trainingkit.tuning.agreement import keep_or_refuse
from lightning_trainingkit.tuning.cli_config import is_plain, plain
from lightning_trainingkit.tuning.source import Source
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
    return keep_or_refuse(study.optuna, SETTINGS, settings, free=_FREE)
