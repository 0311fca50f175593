"""The tuning playbook's questions to a search, answered in words with numbers."""

import statistics
from collections.abc import Sequence
from typing import Any, Literal

from lightning_trainingkit.dashboards.checks import SEARCHES
from lightning_trainingkit.functional.expected_best import expected_best
from lightning_trainingkit.functional.repeated_values import noise_of_repeats
from lightning_trainingkit.tuning.searches.edge_verdict import edge_verdict
from lightning_trainingkit.tuning.searches.effect import MANY, best_and_worse, without_effect
from lightning_trainingkit.tuning.searches.importance import importances
from lightning_trainingkit.tuning.searches.isolation import isolate
from lightning_trainingkit.tuning.trials.domains import Range
from lightning_trainingkit.tuning.trials.result import Result, best_first, configurations
from lightning_trainingkit.tuning.trials.space import Space
from lightning_trainingkit.tuning.trials.wording import names_listed
from lightning_trainingkit.tuning.verdict import Verdict

__all__ = ["PLAYBOOK", "playbook"]

PLAYBOOK = {name: title for name, title in SEARCHES.items() if name != "search"}
"""Each question to its title."""

_DIVERGED = 0.25  # share of diverged trials that wastes the search
_LEAST = 4  # finished trials that allow an answer
_MANY_TRIALS = 8  # finished trials that allow an answer about the importance


def playbook(
    space: Space, results: Sequence[Result], mode: Literal["min", "max"], monitor: str, seed: int = 0
) -> tuple[Verdict, ...]:
    """Answer the questions of the Deep Learning Tuning Playbook about one search.

    - **edges**: does the best point lie at an edge of the space?
    - **samples**: would the best value move, had there been half of the trials?
    - **isolation**: where in its range is each hyperparameter best, whatever the others are?
    - **importance**: how much of the ranks does each hyperparameter explain? (fANOVA)
    - **divergence**, **failures**: how many trials gave no value, and where?
    - **noise**: how far apart are trainings of one configuration with other seeds?

    Args:
        space: The space that was searched.
        results: Results of all trials.
        mode: Better end of the metric.
        monitor: Name of the metric.
        seed: Seed of the forest that estimates the importance.

    Returns:
        A verdict for each question that the results can answer.

    References:
        Godbole et al., "Deep Learning Tuning Playbook", 2023, github.com/google-research/tuning_playbook.
    """
    done = best_first(results, mode)
    found = [_divergence(space, results), _failures(results)]
    if len(done) >= _LEAST:
        noise = noise_of_repeats([values for _, values in configurations(done)])
        found += [
            edge_verdict(space, done, mode, noise),
            _samples(results, done, mode, monitor, noise),
            _isolation(space, done, mode, noise),
            _importance(space, done, mode, seed),
            _noise(noise, done, monitor),
        ]
    order = list(PLAYBOOK)
    return tuple(sorted((each for each in found if each is not None), key=lambda each: order.index(each.step)))


def _divergence(space: Space, results: Sequence[Result]) -> Verdict | None:
    done = [each for each in results if each.state != "failed"]
    diverged = [each for each in done if each.outcome.get("diverged")]
    if not done:
        return None
    share = len(diverged) / len(done)
    message = f"{len(diverged)} of {len(done)} trials diverged."
    advice = ""
    if diverged:
        healthy = [each for each in done if each not in diverged]
        for name, domain in space.items():
            if not isinstance(domain, Range) or not healthy:
                continue
            lowest = min(each.params[name] for each in diverged)
            if sum(each.params[name] < lowest for each in healthy) >= 0.8 * len(healthy):
                message += f" All of them have `{name}` of at least {lowest:.3g}."
                advice = f"Lower the upper end of `{name}`." if share > _DIVERGED else ""
                break
        if share > _DIVERGED and not advice:
            advice = "Lower the learning rate, or clip gradients."
    verdict: Literal["pass", "warn", "fail"] = "warn" if share > _DIVERGED else "pass"
    return Verdict(
        step="divergence", verdict="fail" if share == 1 else verdict, message=message, advice=advice, value=share
    )


def _failures(results: Sequence[Result]) -> Verdict | None:
    failed = [each for each in results if each.state == "failed"]
    if not failed:
        return None
    last = (failed[0].error.strip().splitlines() or ["unknown"])[-1]
    return Verdict(
        step="failures",
        verdict="fail" if len(failed) == len(results) else "warn",
        message=f"{len(failed)} of {len(results)} trials failed. Trial {failed[0].ticket}, the first: {last}",
        advice="The report has the tracebacks. Mend the error, or leave such values out of the space.",
        value=len(failed) / len(results),
    )


def _samples(
    results: Sequence[Result], done: Sequence[Result], mode: str, monitor: str, noise: float | None
) -> Verdict:
    """One value counts for each configuration. A pruned one counts as the worst of those that were completed."""
    values = sorted((statistics.fmean(each) for _, each in configurations(done)), reverse=mode == "max")
    values += [values[-1]] * len(_only_pruned(results))
    count = len(values)
    half = max(1, count // 2)
    all_mean, _ = expected_best(values, count, mode)
    mean, spread = expected_best(values, half, mode)
    moved, reach = abs(mean - all_mean), abs(values[count // 2] - values[0])
    limit = MANY * reach if noise is None else max(noise, MANY * reach)
    enough = moved <= limit
    measured = (
        f"With {half} instead of {count} configurations, the best {monitor} would be worse by {moved:.2g} ± "
        f"{spread:.2g} (bootstrap). "
    )
    why = (
        f"That is within the noise of the training, {noise:.2g}."
        if noise is not None and moved <= noise
        else f"From the best configuration to the median it is {reach:.2g}."
    )
    return Verdict(
        step="samples",
        verdict="pass" if enough else "warn",
        message=measured + why,
        advice="" if enough else "Train twice as many trials, or narrow the space.",
        value=moved,
    )


def _only_pruned(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Configurations that were pruned, and never trained to their end."""
    known = [params for params, _ in configurations(results)]
    found: list[dict[str, Any]] = []
    for each in results:
        if each.state == "pruned" and each.params not in known:
            known.append(each.params)
            found.append(each.params)
    return found


def _isolation(space: Space, done: Sequence[Result], mode: str, noise: float | None) -> Verdict:
    flat = without_effect(space, done, mode, noise)
    said = []
    for name, bins in isolate(space, done, mode).items():
        if name not in flat:
            best, worse = best_and_worse(bins, mode)
            said.append(f"`{name}` is best at {best.title} ({best.best:.4g}; up to {worse:.2g} worse elsewhere)")
    if flat:
        said.append(f"{names_listed(flat)} made no difference to the best value")
    message = "; ".join(said)
    return Verdict(step="isolation", verdict="pass", message=f"{message[:1].upper()}{message[1:]}.")


def _importance(space: Space, done: Sequence[Result], mode: str, seed: int) -> Verdict | None:
    found = importances(space, done, mode, seed) if len(space) > 1 and len(done) >= _MANY_TRIALS else {}
    if not found:
        return None
    said = ", ".join(f"`{name}` {share:.0%}" for name, share in found.items())
    little = [name for name, share in found.items() if share < 0.05]
    return Verdict(
        step="importance",
        verdict="pass",
        message=f"Of the ranks of {len(done)} trials, {said} (fANOVA).",
        advice=f"{names_listed(little)} may stay fixed in the next search." if little else "",
        value=max(found.values()),
    )


def _noise(noise: float | None, done: Sequence[Result], monitor: str) -> Verdict | None:
    if noise is None:
        return None
    repeats = sum(len(values) for _, values in configurations(done) if len(values) > 1)
    gap = abs(float(done[1].value or 0.0) - float(done[0].value or 0.0))
    close = gap < noise
    return Verdict(
        step="noise",
        verdict="pass",
        message=f"One configuration's {monitor} varies by {noise:.2g} from seed to seed ({repeats} trainings)."
        + (" The two best trials differ by less." if close else ""),
        value=noise,
    )
