"""The report of a search in Markdown."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lightning_trainingkit.tuning.searches.isolation import isolate
from lightning_trainingkit.tuning.searches.playbook import PLAYBOOK
from lightning_trainingkit.tuning.trials.domains import Choices, Domain
from lightning_trainingkit.tuning.verdict import Verdict

if TYPE_CHECKING:
    from lightning_trainingkit.tuning.searches.search_result import SearchResult

__all__ = ["markdown_table", "search_report", "search_section"]

_MOST = 10  # trials in the table
_TRACEBACKS = 3
_TITLES = {"coarse_search": "Step 4: coarse search", "refine_search": "Step 5: refined search"}


def search_report(search: "SearchResult") -> str:
    """The report of one search."""
    return f"# {search.settings.get('module', search.name)}\n\n{search_section(search)}"


def search_section(search: "SearchResult") -> str:
    """The part of a report on one search: verdicts, space, best trials, isolation, failures."""
    parts = [f"## {_TITLES.get(search.step, search.step)} (`{search.name}`)", search.line]
    if search.lines:
        parts.append(_verdicts(search.lines))
    parts.append(
        markdown_table(
            [{"hyperparameter": f"`{name}`", "searched": _shown(each)} for name, each in search.space.items()]
        )
    )
    rows = [{**row, search.monitor: _number(row[search.monitor])} for row in search.rows[:_MOST]]
    if rows:
        shown = f"The best {len(rows)} of {len(search.trials)} trials" if len(search.trials) > _MOST else "All trials"
        parts += [f"{shown}, {search.epochs} epochs together:", markdown_table(rows)]
    if search.ranked:
        parts += ["The best value in each part of a range:", _isolation(search)]
    failed = [each for each in search.trials if each.state == "failed"]
    for each in failed[:_TRACEBACKS]:
        parts.append(f"Trial {each.ticket} failed with {dict(each.params)}:\n\n```text\n{each.error.strip()}\n```")
    if len(failed) > _TRACEBACKS:
        parts.append(f"{len(failed) - _TRACEBACKS} further trials failed.")
    parts += [f"- {note}" for note in search.notes]
    return "\n\n".join(parts) + "\n"


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a table, a column for each key. None is a value: an empty cell has an empty text, or no key."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [columns, ["---"] * len(columns), *([_cell(row.get(name, "")) for name in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _verdicts(lines: Sequence[Verdict]) -> str:
    return markdown_table(
        [
            {
                "question": PLAYBOOK.get(each.step, each.step),
                "verdict": f"**{each.verdict}**",
                "what was measured, and what to do": " ".join(filter(None, (each.message, each.advice))),
            }
            for each in lines
        ]
    )


def _isolation(search: "SearchResult") -> str:
    found = isolate(search.space, search.ranked, search.mode)
    rows = [
        {"hyperparameter": f"`{name}`", "part": part.title, "trials": part.count, search.monitor: _number(part.best)}
        for name, parts in found.items()
        for part in parts
    ]
    return markdown_table(rows)


def _shown(domain: Domain) -> str:
    if isinstance(domain, Choices):
        return ", ".join(map(str, domain.values))
    kind = ", ".join(word for word in ("log", "integer") if getattr(domain, word))
    return f"{domain.low:.4g} to {domain.high:.4g}{f' ({kind})' if kind else ''}"


def _number(value: float | None) -> float | str:
    return "" if value is None else value


def _cell(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
