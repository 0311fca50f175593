"""Draw the command center as one HTML file that needs no network."""

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
    *("table.js", "checks.js", "list.js", "headline.js", "print.js", "panel.js", "page.js"),
)


def render(data: Mapping[str, Any], title: str = "Command center", *, follow: float = 0.0) -> str:
    """Draw a self-contained page, with Plotly, data and scripts inside.

    Args:
        data: Data from ``page_data``.
        title: Title of the page.
        follow: Seconds between two requests of the page to its server for new data; 0 for a file, which never asks.

    Raises:
        ImportError: If plotly is not installed.
    """
    made = f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S %Z}: {data['counted']}"
    # Without "<" no HTML tag can begin in it.
    text = json.dumps({**data, "made": made, "follow": follow}, allow_nan=False, separators=(",", ":"))
    text = text.replace("<", "\\u003c")
    own = files("lightning_trainingkit.dashboards.page")
    parts = {
        "title": escape(title),
        "nonce": hashlib.sha256(text.encode()).hexdigest()[:32],  # the data cannot contain their own hash
        "connect": "'self'" if follow else "'none'",
        "css": (own / "page.css").read_text(encoding="utf-8"),
        "plotly": _plotly(),
        "script": "\n".join((own / name).read_text(encoding="utf-8") for name in _SCRIPTS),
        "data": text,
    }
    template = (own / "page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)


def write_page(path: Path, text: str) -> None:
    """Write the page as a whole: an error leaves the old file.

    Raises:
        IsADirectoryError: If ``path`` is a folder. The folder is not changed.
    """
    check_file(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, text.encode("utf-8", "backslashreplace"))  # a file's name may hold bytes that are no text


def check_file(path: Path) -> None:
    """Raise IsADirectoryError if ``path`` is a folder."""
    if path.is_dir():
        raise IsADirectoryError(f"The page must be a file, got the folder {path}. Try {path / 'dashboard.html'}.")


def _plotly() -> str:
    try:
        import plotly  # noqa: F401
    except ImportError as error:
        raise ImportError(f"{error}. Run: pip install 'lightning-trainingkit[dashboard]'.") from error
    return (files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
