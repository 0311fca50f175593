"""Run the steps one after the other, with progress. A step that raises is a verdict too."""

from collections.abc import Callable, Sequence
from functools import partial

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from lightning_trainingkit import tuning
from lightning_trainingkit.commands.build import Built
from lightning_trainingkit.commands.load import line_of

__all__ = ["TITLES", "run_steps"]

TITLES = {
    "initial_loss": "Step 1: check the initial loss",
    "small_sample": "Step 2: overfit a small sample",
    "learning_rate": "Step 3: find the rate that makes the loss go down",
}


def run_steps(built: Built, numbers: Sequence[int], expected: float | None = None) -> list[tuning.Verdict]:
    """Run steps by their numbers in the lecture, and return their verdicts.

    Args:
        built: Module, data and arguments of the Trainer, which takes one device unless they say otherwise.
        numbers: Numbers from 1 to 3.
        expected: The initial loss to expect. None takes it from the loss function.
    """
    functions: tuple[Callable[..., tuning.Verdict], ...] = (
        partial(tuning.check_initial_loss, expected=expected),
        tuning.overfit_small_sample,
        tuning.find_learning_rate,
    )
    options = {"devices": 1, **built.trainer_options}
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    found: list[tuning.Verdict] = []
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        for number in numbers:
            step, title = list(TITLES.items())[number - 1]
            task = progress.add_task(title, total=None)
            try:
                found.append(functions[number - 1](built.module, built.data, trainer_options=options))
            except Exception as error:  # of the user's code, or an argument that the step refuses
                said = f"{type(error).__name__}: {' '.join(str(error).split())}{line_of(error)}"
                found.append(tuning.Verdict(step=step, verdict="fail", message=f"The step could not run. {said}"))
            progress.remove_task(task)
    return found
