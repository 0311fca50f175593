"""One search from its arguments to its result."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from lightning_trainingkit._lightning import L
from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.metric_name import resolve_mode
from lightning_trainingkit.tuning.searches.cli_config import cli_sections, left_out
from lightning_trainingkit.tuning.searches.constant_rate import ConstantRate
from lightning_trainingkit.tuning.searches.earlier_results import add_earlier
from lightning_trainingkit.tuning.searches.playbook import playbook
from lightning_trainingkit.tuning.searches.samplers import Pruner, Sampler, choose_pruner, choose_sampling
from lightning_trainingkit.tuning.searches.search_record import record_search
from lightning_trainingkit.tuning.searches.search_result import SearchResult
from lightning_trainingkit.tuning.searches.search_settings import agree, training_of
from lightning_trainingkit.tuning.searches.space_moves import default_space, narrow
from lightning_trainingkit.tuning.trials.result import Result, counted
from lightning_trainingkit.tuning.trials.run_trials import run_trials
from lightning_trainingkit.tuning.trials.source import Source, make_source
from lightning_trainingkit.tuning.trials.space import Space
from lightning_trainingkit.tuning.trials.study import Study
from lightning_trainingkit.tuning.trials.trial_callbacks import check_callbacks
from lightning_trainingkit.tuning.trials.trial_job import TrialJob
from lightning_trainingkit.tuning.trials.trial_parts import open_home
from lightning_trainingkit.tuning.trials.wording import values_listed

__all__ = ["Search", "as_space", "search_result"]

_NO_SCHEDULE = "Learning-rate schedules were off: each trial had a constant rate."


class Search:
    """One search. The arguments are those of ``coarse_search``.

    Args:
        step: ``"coarse_search"`` or ``"refine_search"``.
        module: The module, its class, a function, or a ``Source`` of both module and data.
        data: The data.
        first: Points that are tried first.
        earlier: Results of other studies, from which the sampler and the pruner learn.
        **options: The other arguments of ``coarse_search``.
    """

    def __init__(
        self,
        step: str,
        module: Any,
        data: Any = None,
        *,
        space: Space | Mapping[str, Any] | str | Path | None,
        rate: float | None,
        trials: int,
        epochs: int,
        monitor: str,
        mode: str | None,
        sampler: Sampler,
        pruner: Pruner,
        storage: str | Path | None,
        name: str,
        output: str | Path | None,
        seed: int,
        trainer_options: Mapping[str, Any] | None,
        callbacks: Sequence[L.Callback],
        wandb: str | None,
        first: Sequence[Mapping[str, Any]] = (),
        earlier: Sequence[Result] = (),
    ) -> None:
        self.step, self.name = step, name
        self.source = module if isinstance(module, Source) else make_source(module, data)
        self.space = as_space(space) if space is not None else default_space(self.source, rate)
        self.space.check_names(self.source.names)
        self.space.check_integers(self.source.given)
        trials = _check.integer("trials", trials, "Give the number of trials over all workers.", least=1)
        seed = _check.integer("seed", seed, "Give any whole number.", least=0)
        options = dict(trainer_options or {})
        self.job = TrialJob(
            max_epochs=epochs,
            monitor=monitor,
            mode=resolve_mode(monitor, mode),
            trainer_options=options,
            callbacks=(ConstantRate(), *check_callbacks(callbacks)),
            wandb=wandb,
        )
        first = [each for each in first if self._is_inside(each)]
        self.earlier = [each for each in earlier if self._is_inside(each.params)]
        sampling = choose_sampling(sampler, self.space, trials, seed, first, len(self.earlier))
        self.folder = open_home(output, name, "output")
        self.study = Study(
            self.folder / "study.log" if storage is None else storage,
            name,
            self.space,
            len(sampling.points) if sampler == "grid" else trials,
            mode=self.job.mode,
            seed=seed,
            sampler=sampling.sampler,
            pruner=choose_pruner(pruner, epochs, first if self.earlier else ()),
            points=sampling.points,
        )
        self.settings = agree(
            self.study,
            {
                "step": step,
                **training_of(self.source, options, callbacks, self.space),
                "epochs": epochs,
                "monitor": monitor,
                "mode": self.job.mode,
                "seed": seed,
                "sampler": sampler if isinstance(sampler, str) else type(sampler).__name__,
                "pruner": pruner if isinstance(pruner, str) else type(pruner).__name__,
                "sections": cli_sections(self.source),
                **({"trials": trials} if sampler == "grid" else {}),
            },
        )
        add_earlier(self.study, self.space, self.earlier)

    def run(
        self,
        *,
        jobs: int | None,
        devices: int,
        accelerator: str,
        verbose: bool,
        stop: Callable[[Study], bool | None] | None = None,
    ) -> SearchResult:
        """Train the trials that are left, and judge all."""
        trained = not self.study.is_done()
        if not trained and verbose:
            said = f"{self.name} is finished: its results are read. To train after a change of the code, give another"
            Console().print(f"{said} name or output.", soft_wrap=True, markup=False, highlight=False)
        if trained:
            run_trials(
                self.study,
                self.source,
                self.job,
                folder=self.folder,
                jobs=jobs,
                devices=devices,
                accelerator=accelerator,
                stop=stop,
                verbose=verbose,
            )
        found = search_result(self.study, self.settings, self.folder, self.earlier)
        if trained:
            record_search(found, found.lines, self.name, self.folder, self.job.wandb_mode)
        return found

    def _is_inside(self, point: Mapping[str, Any]) -> bool:
        return set(point) == set(self.space) and all(self.space.holds(name, each) for name, each in point.items())


def as_space(space: Space | Mapping[str, Any] | str | Path) -> Space:
    """The space that a user gave: itself, a dict, or a YAML file."""
    if isinstance(space, Space):
        return space
    return Space.from_yaml(space) if isinstance(space, str | Path) else Space(space)


def search_result(
    study: Study, settings: Mapping[str, Any], folder: Path, earlier: Sequence[Result] = (), ended: bool = True
) -> SearchResult:
    """Judge the trials of a study that have ended.

    Args:
        study: The study.
        settings: Its settings.
        folder: Its folder.
        earlier: Results of earlier rounds in the same space, which the playbook's verdicts count too.
        ended: Whether no more trials are trained.
    """
    results, monitor, mode = study.results(), str(settings["monitor"]), study.mode
    ranked = study.ranked()
    lines = playbook(study.space, [*earlier, *results], "min" if mode == "min" else "max", monitor, study.seed)
    total = study.counts()["total"]
    numbers = counted(results)
    left = total - len(results)
    numbers += [f"{left} not trained{'' if ended else ' yet'}"] if left else []
    said = f" ({', '.join(numbers)})" if numbers else ""
    if ranked:
        best = ranked[0]
        message = f"The best of {total} trials{said} has {monitor} {best.value:.4g} with {values_listed(best.params)}."
        bad = any(each.verdict != "pass" for each in lines)
        advice = " ".join(each.advice for each in lines if each.verdict != "pass" and each.advice)
    elif left and not ended:
        message, bad, advice = f"None of {total} trials was finished yet{said}.", True, ""
    else:
        message, bad = f"None of {total} trials was finished{said}.", True
        advice = next((each.advice for each in lines if each.verdict == "fail"), "Take another space.")
    return SearchResult(
        step=str(settings["step"]),
        verdict="fail" if not ranked and (ended or not left) else "warn" if bad else "pass",
        message=message,
        advice=advice,
        value=ranked[0].value if ranked else None,
        notes=tuple(each for each in (_NO_SCHEDULE, left_out(settings)) if each),
        name=study.name,
        best=dict(ranked[0].params) if ranked else {},
        lines=lines,
        space=study.space,
        next_space=narrow(study.space, [each.params for each in ranked]) if len(ranked) >= 3 else None,
        trials=tuple(results),
        planned=total,
        settings=settings,
        folder=folder,
    )
