"""The loop of the seven steps: what is run, in which space, and when it ends."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.metric_name import resolve_mode
from lightning_trainingkit.tuning.curves import read_curves
from lightning_trainingkit.tuning.searches.budget import Budget
from lightning_trainingkit.tuning.searches.edge_verdict import edges_of
from lightning_trainingkit.tuning.searches.first_steps import FirstSteps, run_first_steps
from lightning_trainingkit.tuning.searches.next_space import widen
from lightning_trainingkit.tuning.searches.own_rate import beside_space, own_rate, rate_name, start_space
from lightning_trainingkit.tuning.searches.rounds import candidates, gained, noise_of
from lightning_trainingkit.tuning.searches.samplers import Sampler
from lightning_trainingkit.tuning.searches.search_record import record_search
from lightning_trainingkit.tuning.searches.search_result import SearchResult
from lightning_trainingkit.tuning.searches.search_run import Search, as_space
from lightning_trainingkit.tuning.searches.search_settings import fixed_values
from lightning_trainingkit.tuning.searches.seven_steps import SevenSteps
from lightning_trainingkit.tuning.searches.seven_steps_files import write_files
from lightning_trainingkit.tuning.searches.seven_steps_report import title_of
from lightning_trainingkit.tuning.searches.seven_steps_result import seven_steps_result
from lightning_trainingkit.tuning.searches.shared_note import write_ended, write_note
from lightning_trainingkit.tuning.searches.space_moves import default_space, near_rate
from lightning_trainingkit.tuning.trials.result import Result, best_first
from lightning_trainingkit.tuning.trials.source import Source, make_source
from lightning_trainingkit.tuning.trials.space import Space
from lightning_trainingkit.tuning.trials.trial_parts import open_home
from lightning_trainingkit.tuning.verdict import Verdict

__all__ = ["Loop"]

_SEEDS = 1000  # between the seeds of two searches: a configuration is trained again with another seed
_MOST_ROUNDS = 100
_FIRST = 3  # configurations of step 4 that the first round trains for longer
_AGAIN = 1  # configurations that a later round trains again: more of them would cost new configurations


class Loop:
    """The seven steps on one module. The arguments are those of ``seven_steps``.

    Args:
        module: The module, its class, a function, or a ``Source`` of both module and data.
        data: The data.
        space: The space, or None.
        budget: Trials, epochs and hours.
        storage: Where the studies are.
        name: Their common name.
        output: Folder for all files.
        seed: Seed of the search.
        search: Arguments of each search.
        run: Arguments of ``Search.run``.
    """

    def __init__(
        self,
        module: Any,
        data: Any,
        space: Any,
        budget: Budget,
        *,
        storage: str | Path | None,
        name: str,
        output: str | Path | None,
        seed: int,
        search: Mapping[str, Any],
        run: Mapping[str, Any],
    ) -> None:
        self.source = module if isinstance(module, Source) else make_source(module, data)
        self.given = as_space(space) if space is not None else None
        if self.given is not None:
            self.given.check_names(self.source.names)
            self.given.check_integers(self.source.given)
        self.start = self.given if self.given is not None else start_space(self.source)
        self.budget, self.name, self.search, self.run_options = budget, name, dict(search), dict(run)
        self.seed = _check.integer("seed", seed, "Give any whole number.", least=0)
        self.mode = resolve_mode(search["monitor"], search["mode"])
        self.folder = open_home(output, name, "output")
        self.storage = self.folder / "study.log" if storage is None else storage

    def run(self, coarse: tuple[int, int], rounds: tuple[int, int], sampler: Sampler) -> SevenSteps:
        """Run all steps until the budget is used, a step fails, or nothing is gained.

        Args:
            coarse: Trials and epochs of step 4.
            rounds: Trials and epochs of a round of step 5.
            sampler: Sampler of step 5.
        """
        first = self._first_steps()
        steps: list[Verdict] = []
        self._add(steps, *first.verdicts)
        self.budget.used_epochs = first.epochs
        if first.failed is not None:
            ended = f"Step {1 + steps.index(first.failed)} failed. Nothing was searched."
        else:
            ended = self._search(first, steps, coarse, rounds, sampler)
        self._say(f"Step 7: {ended}")
        write_ended(self.storage, self.name, ended)
        found = seven_steps_result(steps, ended, self.budget.used_epochs, self.mode, self.folder)
        if found.best:
            record_search(found, (), self.name, self.folder, self._wandb_mode)
        return write_files(found, self.search["monitor"], self.mode, self.seed, self._records())

    def _search(
        self,
        first: FirstSteps,
        steps: list[Verdict],
        coarse: tuple[int, int],
        rounds: tuple[int, int],
        sampler: Sampler,
    ) -> str:
        """Steps 4 to 7. Returns why they ended."""
        trials, epochs = coarse
        space, rate = self.start, own_rate(self.source, self.start, first)
        if self.given is not None:
            space = near_rate(self.given, rate_name(self.source, self.start), rate)
        elif rate is not None:
            space = default_space(self.source, rate)
        steps[-1] = beside_space(steps[-1], rate, self.source, self.given)
        if ended := self.budget.spent(epochs):
            return ended
        found = self._one("coarse_search", "coarse", space, self.budget.left_trials(trials), epochs, "quasi-random", 1)
        self._add(steps, found)
        if not found.best:
            return "Step 4 failed: no trial was finished."
        space, again = found.next_space or space, [each.params for each in found.ranked[:_FIRST]]
        trials, epochs = rounds
        results: list[list[Result]] = []
        for number in range(1, _MOST_ROUNDS):
            left = self.budget.left_trials(trials)
            if ended := self.budget.spent(epochs) or ("" if left > 1 else self.budget.too_few(left)):
                return ended
            again = again[: max(1, left - 1)]
            earlier = [each for part in results for each in part]
            found = self._one(
                *("refine_search", f"refine-{number}", space, left, epochs, sampler),
                1 + number,
                first=again,
                earlier=earlier,
            )
            results.append(list(found.trials))
            earlier += found.trials
            self._add(steps, found, self._look(found))
            if len(found.trials) < found.planned and (ended := self.budget.spent(epochs)):
                return ended
            ranked = candidates(earlier, self.mode)
            if not ranked:
                return "Step 5 failed: no trial was finished."
            if len(results) > 1 and (ended := gained(results, self.mode)):
                return ended
            done = best_first(earlier, self.mode)
            inside = [each for each in done if all(space.holds(name, value) for name, value in each.params.items())]
            if len(inside) > 3:
                space = widen(space, edges_of(space, inside, self.mode, noise_of(earlier)), self.given)
            again = [dict(each.params) for each in ranked[:_AGAIN]]
        return f"{_MOST_ROUNDS} rounds were searched."

    def _one(
        self,
        step: str,
        part: str,
        space: Space,
        trials: int,
        epochs: int,
        sampler: Sampler,
        number: int,
        **further: Any,
    ) -> SearchResult:
        """One search, counted."""
        search = Search(
            step,
            self.source,
            space=space,
            rate=None,
            trials=trials,
            epochs=epochs,
            sampler=sampler,
            storage=self.storage,
            name=f"{self.name}-{part}",
            output=self.folder / part,
            seed=self.seed + _SEEDS * number,
            **self.search,
            **further,
        )
        found = search.run(**self.run_options, stop=self.budget.stop(epochs))
        self.budget.used_trials += len(found.trials)
        self.budget.used_epochs += found.epochs
        return found

    def _add(self, steps: list[Verdict], *found: Verdict) -> None:
        for each in found:
            steps.append(each)
            self._say(f"Step {title_of(each)}: {each.line}")

    def _say(self, text: str) -> None:
        if self.run_options["verbose"]:
            Console().print(text, soft_wrap=True, markup=False, highlight=False)

    def _first_steps(self) -> FirstSteps:
        options = dict(self.search["trainer_options"] or {})
        run = self.run_options

        def make() -> dict[str, Any]:
            found = run_first_steps(self.source, self.start, options, run["accelerator"], self.seed)
            return {"module": self.source.describe, "fixed": fixed_values(self.source), **found.to_json()}

        def counts(note: dict[str, Any]) -> bool:  # after a failure, the user mends the module and calls again
            return FirstSteps.from_json(note).failed is None

        note = write_note(self.storage, self.name, make, counts)
        for key, mine in (("module", self.source.describe), ("fixed", fixed_values(self.source))):
            if note[key] != mine:
                raise ValueError(
                    f"`module` must be the one of the stored search {self.name!r}, {note[key]}, got {mine}. Give "
                    "another name."
                )
        return FirstSteps.from_json(note)

    def _look(self, found: SearchResult) -> Verdict:
        """Step 6 on the best trial of a search."""
        best = next(iter(found.ranked), None)
        folder = Path(str(best.outcome.get("folder", ""))) if best is not None else Path()
        missing = "No trial was finished." if best is None else ""
        if not missing and not self._records():
            missing = "No curves were recorded: W&B is disabled."
        if not missing:
            try:
                reading = read_curves(folder)
                return reading[-1] if isinstance(reading, list) else reading
            except (OSError, ValueError) as error:
                missing = str(error)
        return Verdict(step="curves", verdict="warn", message=missing)

    @property
    def _wandb_mode(self) -> str:
        return self.search["wandb"] or os.environ.get("WANDB_MODE", "offline")

    def _records(self) -> bool:
        """Whether trials are recorded by W&B."""
        return self._wandb_mode != "disabled"
