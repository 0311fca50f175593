"""Results of searches that nobody trained: a value for each point of a space."""

from lightning_trainingkit.tuning.searches.space_points import quasi_random_points
from lightning_trainingkit.tuning.trials.domains import Range
from lightning_trainingkit.tuning.trials.result import Result
from lightning_trainingkit.tuning.trials.space import Space

SPACE = Space({"lr": Range(1e-4, 1e-1, log=True), "drop": Range(0.0, 0.5)})


def results(value, count=16, space=SPACE, seed=0):
    """Completed results; ``value`` is a function of the point."""
    points = quasi_random_points(space, count, seed)
    return [result(number, point, value(point)) for number, point in enumerate(points)]


def result(number, params, value, state="completed", **outcome):
    reports = {1: value} if value is not None else {}
    error = "ValueError: nothing works" if state == "failed" else ""
    return Result(number, state, params, value, reports, 1, {"epochs": 1, **outcome}, error, number)
