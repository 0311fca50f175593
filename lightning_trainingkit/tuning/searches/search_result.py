"""The answer of a search, steps 4 and 5."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_trainingkit.tuning.searches.cli_config import write_config
from lightning_trainingkit.tuning.trials.result import Result, best_first, trained_epochs
from lightning_trainingkit.tuning.trials.space import Space
from lightning_trainingkit.tuning.verdict import Verdict

__all__ = ["LONGER", "SearchResult"]

LONGER = 5  # the final training has so many times the epochs of a trial


@dataclass(frozen=True, kw_only=True)
class SearchResult(Verdict):
    """The answer of ``coarse_search`` and ``refine_search``. ``value`` is the best value.

    Args:
        name: Name of the study.
        best: Hyperparameters of the best trial. Empty if no trial was finished.
        lines: The tuning playbook's verdicts.
        space: The space that was searched.
        next_space: The space that holds the best results. None if too few trials were finished.
        trials: What came of each trial that has ended.
        planned: Number of trials of the study.
        settings: Settings of the search, among them ``monitor``, ``mode``, ``epochs`` and ``module``.
        folder: Folder of the search.

    Example:
        >>> space = Space({"lr": {"low": 1e-3, "high": 1e-1, "log": True}})
        >>> found = SearchResult(step="coarse_search", verdict="pass", message="...", name="demo", space=space)
        >>> found.epochs
        0
    """

    name: str
    best: Mapping[str, Any] = field(default_factory=dict)
    lines: tuple[Verdict, ...] = ()
    space: Space
    next_space: Space | None = None
    trials: tuple[Result, ...] = ()
    planned: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    folder: Path = Path()

    @property
    def monitor(self) -> str:
        """The metric by which trials are compared."""
        return str(self.settings.get("monitor", "val/loss"))

    @property
    def mode(self) -> str:
        """The better end of the metric."""
        return str(self.settings.get("mode", "min"))

    @property
    def epochs(self) -> int:
        """Epochs that all trials trained together."""
        return sum(trained_epochs(each) for each in self.trials)

    @property
    def ranked(self) -> list[Result]:
        """The completed trials, the best first."""
        return best_first(self.trials, self.mode)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row for each trial, the best first, then those that were pruned or failed."""
        ranked = self.ranked
        others = [each for each in self.trials if each not in ranked]
        return [
            {
                "trial": each.ticket,
                "state": each.word,
                self.monitor: each.value,
                "epochs": trained_epochs(each),
                **each.params,
            }
            for each in (*ranked, *others)
        ]

    @property
    def report(self) -> str:
        """The search in Markdown: verdicts, best trials, isolation, failures."""
        from lightning_trainingkit.tuning.searches.study_report import search_report

        return search_report(self)

    def save_config(self, path: str | os.PathLike[str], epochs: int | None = None) -> str:
        """Write the best configuration as a file that LightningCLI runs.

        The module's own learning-rate schedule works again, over all epochs.

        Args:
            path: The file, such as ``best.yaml``.
            epochs: Epochs of the training, by default five times those of a trial.

        Returns:
            The command that trains it.

        Raises:
            ValueError: If no trial was finished, or if a function makes the module or an argument is an object.
        """
        if not self.best:
            raise ValueError(
                "`best` must be known, got no finished trial. Search again, by the advice of the verdicts."
            )
        return write_config(
            path,
            self.settings.get("sections", {"missing": "the study does not have them."}),
            self.best,
            epochs=epochs or LONGER * int(self.settings["epochs"]),
            monitor=self.monitor,
            mode=self.mode,
            seed=int(self.settings.get("seed", 0)),
            trainer_options=self.settings.get("trainer_options", {}),
        )

    def save_picture(self, path: str | os.PathLike[str]) -> None:
        """Draw the values in the order of the trials, and an isolation plot for each hyperparameter.

        Args:
            path: The file. Its ending chooses the format, such as ``.png``.

        Raises:
            ImportError: If matplotlib is missing, which the extra ``tuning`` installs.
        """
        from lightning_trainingkit.tuning.searches.search_picture import save_picture

        save_picture([self], path)
