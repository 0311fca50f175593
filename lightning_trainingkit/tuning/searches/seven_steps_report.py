"""The report of the seven steps in Markdown."""

from typing import TYPE_CHECKING

from lightning_trainingkit.tuning.searches.study_report import markdown_table, search_section
from lightning_trainingkit.tuning.verdict import Verdict

if TYPE_CHECKING:
    from lightning_trainingkit.tuning.searches.seven_steps import SevenSteps

__all__ = ["seven_steps_report", "title_of"]

_TITLES = {
    "initial_loss": "1: initial loss",
    "small_sample": "2: small sample",
    "learning_rate": "3: learning rate",
    "coarse_search": "4: coarse search",
    "refine_search": "5: refined search",
    "curves": "6: curves of the best trial",
}


def title_of(step: Verdict) -> str:
    """The number and name of a step."""
    return _TITLES.get(step.step, step.step)


def seven_steps_report(found: "SevenSteps") -> str:
    """The answer, a line for each step, the best configuration, and a section for each search."""
    searches = found.searches
    title = searches[0].settings.get("module", "Seven steps") if searches else "Seven steps"
    rows = [
        {
            "step": title_of(each),
            "verdict": f"**{each.verdict}**",
            "what was measured, and what to do": " ".join(filter(None, (each.message, each.advice, *each.notes))),
        }
        for each in found.steps
    ]
    rows.append({"step": "7: go to 5", "verdict": "", "what was measured, and what to do": found.ended})
    parts = [f"# {title}", found.line, markdown_table(rows)]
    if found.best:
        parts.append("## The best configuration")
        parts.append(
            markdown_table([{"hyperparameter": f"`{name}`", "value": each} for name, each in found.best.items()])
        )
        trained = ", ".join(f"{each:.4g}" for each in found.values)
        parts.append(f"{searches[-1].monitor} of its trainings: {trained}. Its expected value is {found.value:.4g}.")
    if found.command:
        parts.append(f"Train it to the end, with the module's own schedule:\n\n```bash\n{found.command}\n```")
    if found.best:
        parts.append("![Trials and isolation plots](search.png)")
    parts += [f"- {note}" for note in found.notes]
    parts += [search_section(each).rstrip() for each in searches]
    return "\n\n".join(parts) + "\n"
