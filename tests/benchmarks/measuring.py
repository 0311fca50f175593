"""What the benchmarks share: a clock, the peak of memory, a row of a comparison."""

import gc
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def now() -> float:
    """Seconds of this process on a CPU, since other programs disturb them less; seconds of the clock on a GPU."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def peak(call: Callable[[], Any]) -> float:
    """Most bytes that torch holds at once during a call, less the bytes from before."""
    gc.collect()  # what is freed in the call must not be from before it
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, record_shapes=False) as profiler:
        call()
    held = highest = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            highest = max(highest, held)
    return highest


def row(
    name: str,
    ours: float,
    peer: float,
    ratio: float,
    goal: float | None,
    low: float | None = None,
    high: float | None = None,
) -> dict:
    """One comparison; of a memory and of a share, less is better.

    A goal below 1, "never slower", is judged by the upper end of the interval. The middle would miss it by chance.
    """
    numbers = {"ours": ours, "peer": peer, "ratio": ratio, "low": low, "high": high}
    rounded = {key: value if value is None else round(value, 4) for key, value in numbers.items()}
    smaller_is_better = any(word in name for word in ("memory", "share"))
    judged = high if high is not None and goal is not None and goal < 1 else ratio
    ok = goal is None or (rounded["ratio"] <= goal if smaller_is_better else judged >= goal)
    return {"name": name, **rounded, "goal": goal, "ok": ok}
