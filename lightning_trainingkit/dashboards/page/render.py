"""Draw the command center as one HTML file, which asks no network for anything."""

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import datetime
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from lightning_trainingkit._files import write_bytes

__all__ = ["check_file", "render", "write_page"]

_SCRIPTS = (
    *("numbers.js", "text.js", "view.js", "figures.js", "steps.js"),
    *("table.js", "list.js", "headline.js", "print.js", "panel.js", "page.js"),
)


def render(data: Mapping[str, Any], title: str = "Command center", *, follow: float = 0.0) -> str:
    """Make a self-contained page: Plotly, data and scripts are in it.

    Args:
        data: What ``page_data`` returns.
        title: Stands above it.
        follow: Seconds after which the page asks the server that it came from for news; 0 for a file, which never asks.

    Raises:
        ImportError: If plotly is not installed.
    """
    made = f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S %Z}: {data['counted']}"
    # No tag can begin in it.
    text = json.dumps({**data, "made": made, "follow": follow}, allow_nan=False, separators=(",", ":"))
    text = text.replace("<", "\\u003c")
    own = files("lightning_trainingkit.dashboards.page")
    parts = {
        "title": escape(title),
        "nonce": hashlib.sha256(text.encode()).hexdigest()[:32],  # which no data can know
        "connect": "'self'" if follow else "'none'",
        "css": (own / "page.css").read_text(encoding="utf-8"),
        "plotly": _plotly(),
        "script": "\n".join((own / name).read_text(encoding="utf-8") for name in _SCRIPTS),
        "data": text,
    }
    template = (own / "page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)


def write_page(path: Path, text: str) -> None:
    """Write the page, whole or not at all.

    Raises:
        IsADirectoryError: If ``path`` is a folder, which stays as it is.
    """
    check_file(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, text.encode("utf-8", "backslashreplace"))  # a file's name may hold bytes that are no text


def check_file(path: Path) -> None:
    """Raise where a page can't be written because ``path`` is a folder."""
    if path.is_dir():
        raise IsADirectoryError(f"The page must be a file, got the folder {path}. Try {path / 'dashboard.html'}.")


def _plotly() -> str:
    try:
        import plotly  # noqa: F401
    except ImportError as error:
        raise ImportError(f"{error}. Run: pip install 'lightning-trainingkit[dashboard]'.") from error
    return (files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
