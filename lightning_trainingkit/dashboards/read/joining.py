"""Join the parts of a run that was resumed."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lightning_trainingkit.dashboards.read.record import Curve, Record

__all__ = ["joined"]


def joined(parts: Sequence[Record]) -> Record:
    """Join the part from the start of a run and the parts after each resume into one run."""
    whole, *later = {part.started: part for part in parts}.values()  # parts that began at one moment are copies
    for part in later:
        both = whole.curves.keys() & part.curves.keys()
        again = max((int((whole.curves[name].steps >= part.curves[name].steps[0]).sum()) for name in both), default=0)
        notes = [whole.note, part.note, f"resumed: the last {again} values were logged once more" if again else ""]
        whole = replace(
            part,
            name=part.name if part.name not in ("", part.id) else whole.name,
            project=part.project or whole.project,
            group=part.group or whole.group,
            job_type=part.job_type or whole.job_type,
            tags=list(dict.fromkeys([*whole.tags, *part.tags])),
            started=whole.started,
            seconds=whole.seconds + part.seconds,
            config=whole.config | part.config,
            goals=whole.goals | part.goals,
            summary=whole.summary | part.summary,
            curves=whole.curves | {name: _after(whole.curves.get(name), curve) for name, curve in part.curves.items()},
            note="; ".join(filter(None, notes)),
        )
    return whole


def _after(one: Curve | None, other: Curve) -> Curve:
    """Continue a curve. Steps that a resumed run repeats replace the earlier values."""
    if one is None:
        return other
    kept = one.steps < other.steps[0]
    return Curve(
        np.concatenate((one.steps[kept], other.steps)),
        np.concatenate((one.values[kept], other.values)),
    )
