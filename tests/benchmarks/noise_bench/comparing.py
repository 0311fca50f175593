"""Times of calls in random turns, and the comparison of two of them."""

import gc
import random
import statistics
from collections.abc import Callable, Mapping, Sequence

from measuring import now

Times = Mapping[str, Sequence[float]]  # seconds of a call, one for each round


def race(
    competitors: Mapping[str, Callable[[], object]],
    rounds: int,
    draw: random.Random,
    calls: int | Mapping[str, int] = 1,
    warm_up: int = 2,
) -> dict[str, list[float]]:
    """Seconds of a call of each competitor, in a random order in each round.

    Args:
        competitors: What is called, by name.
        rounds: Number of times that each competitor has its turn.
        draw: Draws the order.
        calls: Calls in a turn: one number, or a number for each competitor.
        warm_up: Calls of each that are not timed.
    """
    for call in competitors.values():
        for _ in range(warm_up):
            call()
    times: dict[str, list[float]] = {name: [] for name in competitors}
    gc.collect()
    for _ in range(rounds):
        for name in draw.sample(list(competitors), len(competitors)):
            count = calls if isinstance(calls, int) else calls[name]
            start = now()
            for _ in range(count):
                competitors[name]()
            times[name].append((now() - start) / count)
    return times


def speed(
    name: str, times: Times, ours: str, peer: str, draw: random.Random, goal: float | None = None, unit: float = 1e3
) -> dict:
    """How many times as fast ours is. The goal is met if the upper end of the interval reaches it."""
    return _compared(name, times, ours, peer, draw, goal, unit, inverse=False)


def overhead(
    name: str, times: Times, ours: str, peer: str, draw: random.Random, goal: float | None = None, unit: float = 1e3
) -> dict:
    """How many times as long ours takes. The goal is met if the lower end of the interval does not exceed it."""
    return _compared(name, times, ours, peer, draw, goal, unit, inverse=True)


def measured(
    name: str,
    ours: float,
    peer: float | None,
    ratio: float | None,
    goal: float | None,
    *,
    most: bool = False,
    low: float | None = None,
    high: float | None = None,
) -> dict:
    """A row of numbers that are no times, such as a memory. With ``most`` the ratio must not exceed the goal."""
    judged = ratio if (low is None or high is None) else low if most else high
    ok = goal is None or (judged is not None and (judged <= goal if most else judged >= goal))
    numbers = {"ours": ours, "peer": peer, "ratio": ratio, "low": low, "high": high}
    rounded = {key: value if value is None else round(value, 4) for key, value in numbers.items()}
    return {"name": name, **rounded, "goal": goal, "ok": bool(ok)}


def _compared(
    name: str, times: Times, ours: str, peer: str, draw: random.Random, goal: float | None, unit: float, inverse: bool
) -> dict:
    pairs = list(zip(times[ours], times[peer], strict=True))

    def ratio(pairs: Sequence[tuple[float, float]]) -> float:
        return statistics.median(a / b if inverse else b / a for a, b in pairs)

    found = sorted(ratio(draw.choices(pairs, k=len(pairs))) for _ in range(1000))
    medians = [unit * statistics.median(times[each]) for each in (ours, peer)]
    return measured(name, *medians, ratio(pairs), goal, most=inverse, low=found[25], high=found[-26])
