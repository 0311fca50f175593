"""A row of the table of results."""

from typing import Any


def row(
    name: str,
    ours: float,
    peer: float | None = None,
    ratio: float | None = None,
    *,
    low: float | None = None,
    high: float | None = None,
    goal: float | None = None,
    ok: bool = True,
) -> dict[str, Any]:
    """One measurement, rounded."""
    numbers = {"ours": ours, "peer": peer, "ratio": ratio, "low": low, "high": high}
    rounded = {key: value if value is None else round(value, 4) for key, value in numbers.items()}
    return {"name": name, **rounded, "goal": goal, "ok": bool(ok)}
