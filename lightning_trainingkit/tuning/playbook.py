"""The tuning playbook's questions to a search, answered in words with numbers."""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from lightning_trainingkit.dashboards.checks import SEARCHES
from lightning_trainingkit.functional.expected_best import expected_best
from lightning_trainingkit.functional.repeated_values import noise_of_repeats
from lightning_trainingkit.tuning.isolation import Bin, isolate
from lightning_trainingkit.tuning.result import Result
from lightning_trainingkit.tuning.space import Range, Space
from lightning_trainingkit.tuning.space_moves import edges
from lightning_trainingkit.tuning.storage import import_optuna
from lightning_trainingkit.tuning.verdict import Verdict

__all__ = ["PLAYBOOK", "configurations", "edges_of", "importances", "playbook"]

PLAYBOOK = {name: title for name, title in SEARCHES.items() if name != "search"}
"""Each question to its title."""

_MANY = 0.1  # of the way from the best value to the median: a smaller gain by more trials does not count
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
    sign = 1 if mode == "min" else -1
    done = sorted(
        (each for each in results if each.state == "completed" and each.value is not None),
        key=lambda each: sign * float(each.value or 0.0),
    )
    found = [_divergence(space, results), _failures(results)]
    if len(done) >= _LEAST:
        noise = noise_of_repeats([values for _, values in configurations(done)])
        found += [
            _edges(space, done, mode, noise),
            _samples(done, mode, monitor, noise),
            _isolation(space, done, mode, noise),
            _importance(space, done, sign, seed),
            _noise(noise, done, monitor),
        ]
    order = list(PLAYBOOK)
    return tuple(sorted((each for each in found if each is not None), key=lambda each: order.index(each.step)))


def configurations(results: Sequence[Result]) -> list[tuple[dict[str, Any], list[float]]]:
    """Each configuration with the values of all its trainings, in the order of the results."""
    found: dict[str, tuple[dict[str, Any], list[float]]] = {}
    for each in results:
        if each.state == "completed" and each.value is not None:
            key = repr(sorted(each.params.items()))
            found.setdefault(key, (each.params, []))[1].append(float(each.value))
    return list(found.values())


def importances(space: Space, results: Sequence[Result], mode: str, seed: int = 0) -> dict[str, float]:
    """Share of the variance of the trials' ranks that each hyperparameter explains, by Optuna's fANOVA.

    Ranks, since one diverging loss would have all the variance. Empty with fewer than four finished trials.

    Args:
        space: The space that was searched.
        results: Results of the trials.
        mode: Better end of the metric.
        seed: Seed of the forest.
    """
    optuna = import_optuna()
    done = [each for each in results if each.state == "completed" and each.value is not None]
    sign = 1 if mode == "min" else -1
    done = sorted(done, key=lambda each: sign * float(each.value or 0.0))
    if len(done) < _LEAST or done[0].value == done[-1].value:
        return {}
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            study = optuna.create_study()
            distributions = space.to_distributions()
            for rank, each in enumerate(done):
                params = {name: each.params[name] for name in distributions}
                study.add_trial(
                    optuna.trial.create_trial(params=params, distributions=distributions, value=float(rank))
                )
            evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
            found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    finally:
        optuna.logging.set_verbosity(level)
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}


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


def edges_of(space: Space, done: Sequence[Result], mode: str, noise: float | None = None) -> dict[str, str]:
    """Hyperparameters whose best values lie at an end of the range: ``"low"`` or ``"high"`` by name.

    The best point of a hyperparameter without an effect may lie anywhere. So the other parts of the range must be
    worse, and the best eighth of the trials must lie at the same end on average.

    Args:
        space: The space that was searched.
        done: Completed trials, the best first.
        mode: Better end of the metric.
        noise: Standard deviation of one configuration's value, if it is known.
    """
    params = [each.params for each in done]
    middle = edges(space, [_centre(space, params[: max(1, len(params) // 8)])], share=0.25)
    flat = _without_effect(space, done, mode, noise)
    return {name: side for name, side in edges(space, params).items() if middle.get(name) == side and name not in flat}


def _edges(space: Space, done: Sequence[Result], mode: str, noise: float | None) -> Verdict:
    params = [each.params for each in done]
    at = edges_of(space, done, mode, noise)
    if not at:
        named = [name for name, domain in space.items() if isinstance(domain, Range)]
        inside = f"The best {_listed(named)} lies inside of the space." if named else "The space has choices alone."
        return Verdict(step="edges", verdict="pass", message=inside)
    said, widen = [], []
    for name, side in at.items():
        domain = space[name]
        assert isinstance(domain, Range)
        end = domain.low if side == "low" else domain.high
        said.append(
            f"the best `{name}` {params[0][name]:.3g} lies at the {'lower' if side == 'low' else 'upper'} end {end:.3g}"
        )
        widen.append(f"`{name}` {'below' if side == 'low' else 'above'} {end:.3g}")
    message = "; ".join(said)
    return Verdict(
        step="edges",
        verdict="warn",
        message=f"{message[0].upper()}{message[1:]}.",
        advice=f"Search {_listed(widen, quoted=True)} too: better values may lie there.",
        value=float(len(at)),
    )


def _centre(space: Space, params: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The middle of some points, in the measure of each range."""
    found: dict[str, Any] = dict(params[0])
    for name, domain in space.items():
        if isinstance(domain, Range):
            places = [math.log(each[name]) if domain.log else float(each[name]) for each in params]
            mean = math.fsum(places) / len(places)
            found[name] = math.exp(mean) if domain.log else mean
    return found


def _samples(done: Sequence[Result], mode: str, monitor: str, noise: float | None) -> Verdict:
    values = [float(each.value or 0.0) for each in done]
    half = max(1, len(values) // 2)
    all_mean, _ = expected_best(values, len(values), mode)
    mean, spread = expected_best(values, half, mode)
    moved, reach = abs(mean - all_mean), abs(values[len(values) // 2] - values[0])
    limit = _MANY * reach if noise is None else max(noise, _MANY * reach)
    enough = moved <= limit
    measured = (
        f"With {half} instead of {len(values)} trials, the best {monitor} would be worse by {moved:.2g} ± {spread:.2g} "
        f"(bootstrap). "
    )
    why = (
        f"That is within the noise of the training, {noise:.2g}."
        if noise is not None and moved <= noise
        else f"From the best trial to the median it is {reach:.2g}."
    )
    return Verdict(
        step="samples",
        verdict="pass" if enough else "warn",
        message=measured + why,
        advice="" if enough else f"Train more trials, {2 * len(values)} in all, or narrow the space.",
        value=moved,
    )


def _isolation(space: Space, done: Sequence[Result], mode: str, noise: float | None) -> Verdict:
    flat = _without_effect(space, done, mode, noise)
    said = []
    for name, bins in isolate(space, done, mode).items():
        if name not in flat:
            best, worse = _best_and_worse(bins, mode)
            said.append(f"`{name}` is best at {best.title} ({best.best:.4g}; up to {worse:.2g} worse elsewhere)")
    if flat:
        said.append(f"{_listed(flat)} made no difference to the best value")
    message = "; ".join(said)
    return Verdict(step="isolation", verdict="pass", message=f"{message[:1].upper()}{message[1:]}.")


def _without_effect(space: Space, done: Sequence[Result], mode: str, noise: float | None) -> list[str]:
    """Hyperparameters with about the same best value in each part of their range."""
    reach = abs(float(done[len(done) // 2].value or 0.0) - float(done[0].value or 0.0))
    small = max(noise or 0.0, _MANY * reach)
    return [name for name, bins in isolate(space, done, mode).items() if _best_and_worse(bins, mode)[1] <= small]


def _best_and_worse(bins: Sequence[Bin], mode: str) -> tuple[Bin, float]:
    """The best part of a range, and by how much another part is worse."""
    seen = [each for each in bins if each.best is not None]
    best = (min if mode == "min" else max)(seen, key=lambda each: each.best or 0.0)
    return best, max(abs((each.best or 0.0) - (best.best or 0.0)) for each in seen)


def _importance(space: Space, done: Sequence[Result], sign: int, seed: int) -> Verdict | None:
    found = importances(space, done, "min" if sign == 1 else "max", seed)
    if not found or len(space) < 2 or len(done) < _MANY_TRIALS:
        return None
    said = ", ".join(f"`{name}` {share:.0%}" for name, share in found.items())
    little = [name for name, share in found.items() if share < 0.05]
    return Verdict(
        step="importance",
        verdict="pass",
        message=f"Of the ranks of {len(done)} trials, {said} (fANOVA).",
        advice=f"{_listed(little)} may stay fixed in the next search." if little else "",
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


def _listed(names: Sequence[str], quoted: bool = False) -> str:
    shown = list(names) if quoted else [f"`{name}`" for name in names]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
