"""Check the arguments of CommandCenter before any training time is spent."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from lightning_trainingkit.callbacks._best_weights import take_mode
from lightning_trainingkit.dashboards.page.render import check_file
from lightning_trainingkit.dashboards.secret import hide
from lightning_trainingkit.functional import _check

__all__ = ["check_arguments"]


def check_arguments(tags: Sequence[str], best: Mapping[str, str] | None, page: str | None) -> None:
    """Raise for arguments out of range, and say where a metric's name contradicts its mode."""
    for metric, mode in (best or {}).items():
        _check.one_of(f"best[{metric!r}]", mode, ("min", "max"), f"Say which end of {metric} is the better one.")
        take_mode("CommandCenter", metric, mode)
    if isinstance(tags, str):
        raise TypeError(f"`tags` must be a list of strings, got {tags!r}. Write `tags=[{tags!r}]`.")
    for tag in (hide(str(tag)) for tag in tags):
        if not 1 <= len(tag) <= 64:
            raise ValueError(
                f"`tags` must have 1 to 64 characters each, got {len(tag)} in {tag!r}. Change it: W&B would drop all."
            )
    if page is not None and find_spec("plotly") is None:
        raise ImportError("`page` needs plotly. Run: pip install 'lightning-trainingkit[dashboard]'.")
    if page is not None:
        check_file(Path(page))
