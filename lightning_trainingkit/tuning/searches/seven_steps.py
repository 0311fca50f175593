"""The lecture's seven steps for choosing hyperparameters, one after the other, with the loop back to step 5."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_trainingkit._lightning import L
from lightning_trainingkit.tuning.searches.samplers import Pruner, Sampler
from lightning_trainingkit.tuning.searches.search_result import SearchResult
from lightning_trainingkit.tuning.trials.space import Space
from lightning_trainingkit.tuning.verdict import Verdict

__all__ = ["SevenSteps", "seven_steps"]


@dataclass(frozen=True, kw_only=True)
class SevenSteps(Verdict):
    """The answer of ``seven_steps``. ``value`` is the expected value of the best configuration.

    Args:
        best: Hyperparameters of the best configuration. Empty if a step failed.
        values: The value of each of its trainings.
        steps: The verdicts of steps 1 to 6 in their order, a search and a reading of curves for each round.
        ended: Why the loop ended.
        epochs: Epochs of all trainings, those of steps 1 to 3 too.
        command: The command that trains the best configuration to the end. Empty if no file could be written.
        folder: Folder with the report, the page, the best configuration and the picture.

    Example:
        >>> answer = SevenSteps(step="seven_steps", verdict="fail", message="Step 1 failed.", ended="step 1")
        >>> answer.searches
        ()
    """

    best: Mapping[str, Any] = field(default_factory=dict)
    values: tuple[float, ...] = ()
    steps: tuple[Verdict, ...] = ()
    ended: str = ""
    epochs: float = 0.0
    command: str = ""
    folder: Path = Path()

    @property
    def searches(self) -> tuple[SearchResult, ...]:
        """The searches, the coarse one first."""
        return tuple(each for each in self.steps if isinstance(each, SearchResult))

    @property
    def report(self) -> str:
        """All steps in Markdown."""
        from lightning_trainingkit.tuning.searches.seven_steps_report import seven_steps_report

        return seven_steps_report(self)


def seven_steps(
    module: Any,
    data: Any = None,
    *,
    space: Space | Mapping[str, Any] | str | Path | None = None,
    max_trials: int | None = 64,
    max_epochs: float | None = None,
    max_hours: float | None = None,
    coarse_trials: int = 16,
    coarse_epochs: int = 3,
    round_trials: int = 8,
    round_epochs: int = 10,
    monitor: str = "val/loss",
    mode: str | None = None,
    sampler: Sampler = "tpe",
    pruner: Pruner = "median",
    storage: str | Path | None = None,
    name: str = "seven_steps",
    output: str | Path | None = None,
    jobs: int | None = None,
    devices: int = 1,
    accelerator: str = "auto",
    seed: int = 0,
    trainer_options: Mapping[str, Any] | None = None,
    callbacks: Sequence[L.Callback] = (),
    wandb: str | None = None,
    verbose: bool = True,
) -> SevenSteps:
    """Run all steps: check, overfit a sample, find the rate, search coarsely, refine, look, and go to step 5.

    - **Steps 1 to 3** run once. If one fails, nothing is searched.
    - **Step 4** searches rates within a decade around step 3's, and narrows the space. **Step 5** searches in rounds.
      Each later round begins with the best configuration so far, trained again with another seed, which tells the
      noise. Where the best lies at an edge, the range is widened, in a space that you gave at most to its own ends.
    - **Step 6** reads the curves of each round's best trial.
    - **The loop** ends when the budget is used, or when the new configurations of a round are not better than the
      earlier ones by half of the noise.

    The same call goes on after an interruption, and in another process or on another machine joins. It writes
    ``report.md``, ``best.yaml`` for LightningCLI, ``search.png`` and ``dashboard.html``.

    Args:
        module: A LightningModule that called ``save_hyperparameters``, its class, or a function that returns a module.
        data: A LightningDataModule, its class, or None for the module's own loaders.
        space: As in ``coarse_search``. Of its learning rates, step 4 searches a decade around step 3's rate to each
            side, if the range holds that rate.
        max_trials: Trials of all searches and workers. None sets no limit.
        max_epochs: Epochs of all searches and workers, with the training steps of steps 1 to 3.
        max_hours: Hours of this call. Running trials finish.
        coarse_trials: Trials of step 4.
        coarse_epochs: Epochs of each. The lecture takes 1 to 5.
        round_trials: Trials of a round of step 5.
        round_epochs: Epochs of each. The lecture takes 10 to 20.
        monitor: Metric that validation logs.
        mode: ``"min"`` or ``"max"``, the better end of the metric. A loss needs none.
        sampler: Sampler of step 5, as in ``coarse_search``; no grid.
        pruner: ``"median"``, ``"hyperband"``, ``"none"``, or one of Optuna's.
        storage: A file for a journal, or the URL of a database. By default ``study.log`` in ``output``.
        name: Name in the storage. The studies are ``NAME-coarse``, ``NAME-refine-1`` and so on.
        output: Folder for all files, by default ``runs/NAME``.
        jobs: Trials at once. By default one, or as many as the GPUs have room for.
        devices: Devices of each trial.
        accelerator: As in Lightning's Trainer.
        seed: Seed of the search.
        trainer_options: Further arguments of Lightning's Trainer, such as ``precision``.
        callbacks: Callbacks of each trial. They are copied.
        wandb: ``"offline"``, ``"online"`` or ``"disabled"``. By default the variable WANDB_MODE, or offline.
        verbose: Whether to show the progress.

    Returns:
        The best configuration, all verdicts, why the loop ended, and the command that trains the best to the end.

    Raises:
        TypeError: If the module cannot be pickled or found by name.
        ValueError: If a hyperparameter is unknown, a range is wrong, or a study has other settings.
        RuntimeError: If all trials fail, with the first traceback.

    Example:
        >>> from lightning_trainingkit import DigitsDataModule, ImageClassifier
        >>> seven_steps(ImageClassifier, DigitsDataModule, max_trials=0)
        Traceback (most recent call last):
        ValueError: `max_trials` must be at least 1, got 0. Leave it out for no limit.

    References:
        CS231n, "Training neural networks", choosing hyperparameters, "without tons of GPUs".
    """
    from lightning_trainingkit.tuning.searches.budget import Budget
    from lightning_trainingkit.tuning.searches.seven_steps_check import check_later_steps
    from lightning_trainingkit.tuning.searches.seven_steps_loop import Loop

    budget = Budget(max_trials, max_epochs, max_hours)
    options = {
        "monitor": monitor,
        "mode": mode,
        "pruner": pruner,
        "trainer_options": trainer_options,
        "callbacks": callbacks,
        "wandb": wandb,
    }
    run = {"jobs": jobs, "devices": devices, "accelerator": accelerator, "verbose": verbose}
    coarse, rounds = (coarse_trials, coarse_epochs), (round_trials, round_epochs)
    check_later_steps(coarse, rounds, sampler, options, run)
    loop = Loop(
        module, data, space, budget, storage=storage, name=name, output=output, seed=seed, search=options, run=run
    )
    return loop.run(coarse, rounds, sampler)
