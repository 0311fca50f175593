"""What `surgery_models.py` prints: a row for each model, the reasons, and the goals."""

import re
from collections.abc import Sequence
from typing import Any

from noise_bench.comparing import measured
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from surgery_bench.one_model import Results
from surgery_bench.zoo import Model

__all__ = ["goals", "model_rows", "print_models", "print_reasons", "reasons"]

APPLIED = 0.95  # of the residual models
AT_LEAST = {"torchvision": 30, "timm": 60}
SHORT = {
    "ELU": "ELU",
    "PReLU": "PReLU",
    "Maxout": "Maxout",
    "group norm": "group",
    "folded": "fold",
    "DropoutOverride": "dropout",
    "DropConnect": "connect",
    "StochasticDepth row": "row",
    "StochasticDepth batch": "batch",
    "FractionalMaxPool": "pool",
    "WeightPenalty": "penalty",
}
LEGEND = """-: refused with a reason. 8+2: eight places changed, two named and left as they are. M: million parameters.
row, batch: StochasticDepth. connect: DropConnect. pool: FractionalMaxPool. s: seconds of the process."""


def model_rows(models: Sequence[Model], surgeries: Sequence[str], results: Results) -> list[dict[str, Any]]:
    """A row for each model, with the number of places that each surgery has changed."""
    rows = []
    for model in models:
        result = results[model]
        cells = {SHORT[name]: _cell(result["outcomes"][name]) for name in surgeries}
        about = {"residual": "yes" if model.is_residual else "no", "M": round(result["parameters"] / 1e6, 1)}
        rows.append({"model": model.name.replace("torchvision/", "tv/"), **about, **cells, "s": result["seconds"]})
    return rows


def print_models(rows: Sequence[dict[str, Any]]) -> None:
    """Print the rows of all models, wider than a narrow terminal."""
    table = Table(title="Places that each surgery has changed", title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    for number, heading in enumerate(rows[0]):
        table.add_column(heading, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(str, row.values()))
    console = Console()
    console.width = max(console.width, 140)
    console.print(table, LEGEND)


def reasons(models: Sequence[Model], results: Results) -> list[dict[str, Any]]:
    """Why surgeries were refused, left places as they are, or failed: each reason with its models."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for model in models:
        for name, outcome in results[model]["outcomes"].items():
            if outcome["reason"]:
                state = "left" if outcome["state"] == "done" else outcome["state"]
                found.setdefault((name, state, _general(outcome["reason"])), []).append(model.name)
    return [
        {"surgery": name, "state": state, "models": names, "reason": reason}
        for (name, state, reason), names in sorted(found.items())
    ]


def print_reasons(rows: Sequence[dict[str, Any]]) -> None:
    """Print the reasons, by surgery."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    for row in rows:
        names = row["models"]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        console.print(f"- {row['surgery']} {row['state']}, {', '.join(names[:3])}{more}: {row['reason']}")


def goals(models: Sequence[Model], surgeries: Sequence[str], results: Results, *, whole: bool) -> list[dict[str, Any]]:
    """The rows that are judged. The numbers of models are goals of the whole run alone."""
    rows = []
    for library, least in AT_LEAST.items():
        count = sum(model.library == library for model in models)
        rows.append(measured(f"models of {library}", count, least, count / least, 1.0 if whole else None))
    for name in surgeries:
        states = [results[model]["outcomes"][name]["state"] for model in models]
        kept = sum(state != "failed" for state in states)
        done = sum(state == "done" for state in states)
        rows.append(measured(f"{name}: kept or refused", kept, len(models), kept / len(models), 1.0))
        rows.append(measured(f"{name}: done", done, len(models), done / len(models), None))
        if name.startswith("StochasticDepth"):
            rows += _depth_goals(name, models, results)
    return rows


def _depth_goals(name: str, models: Sequence[Model], results: Results) -> list[dict[str, Any]]:
    rows = []
    for residual, words in ((True, "applied on residual models"), (False, "refused without residual blocks")):
        chosen = [results[model]["outcomes"][name] for model in models if model.is_residual is residual]
        if chosen:
            right = sum(_is_applied(each) if residual else each["state"] == "refused" for each in chosen)
            goal = APPLIED if residual else 1.0
            rows.append(measured(f"{name}: {words}", right, len(chosen), right / len(chosen), goal))
    return rows


def _is_applied(outcome: dict[str, Any]) -> bool:
    """Whether most branches that were found can be dropped."""
    return outcome["state"] == "done" and outcome["places"] > outcome["left"]


def _cell(outcome: dict[str, Any]) -> str:
    if outcome["state"] != "done":
        return {"refused": "-", "failed": "FAILED"}[outcome["state"]]
    return f"{outcome['places']}" + (f"+{outcome['left']}" if outcome["left"] else "")


def _general(reason: str) -> str:
    """A reason without the names of layers, so that models share it."""
    text = re.sub(r"`[\w.]*\d[\w.]*`", "`...`", reason)
    return text if len(text) <= 300 else f"{text[:300]} ..."
