"""Encode a curve for JSON, thinned and in few bytes."""

import base64
from typing import Any

import numpy as np

from lightning_trainingkit.dashboards.read.record import Curve
from lightning_trainingkit.dashboards.read.thinning import is_drawable, thin

__all__ = ["encoded"]


def encoded(curve: Curve, shares: int) -> dict[str, Any]:
    """A thinned curve as plain values. Values that cannot be drawn stand apart, by name.

    Args:
        curve: The curve.
        shares: Number of shares that keep their extremes.
    """
    curve = thin(curve, shares)
    steps, drawable = curve.steps, is_drawable(curve.values)
    # Whole numbers up to here are exact in 32 bits.
    wide = bool(len(steps)) and bool(np.abs(steps).max() >= 2**24 or (steps != np.floor(steps)).any())
    kind = "<f8" if wide else "<f4"
    odd = np.flatnonzero(np.logical_not(drawable))
    kinds = ["NaN" if value != value else "Infinity" if value > 0 else "-Infinity" for value in curve.values[odd]]
    found: dict[str, Any] = {
        "x": _base64(steps[drawable], kind),
        "y": _base64(curve.values[drawable], "<f4"),
        "odd": list(zip(steps[odd].tolist(), kinds, strict=True)),
    }
    if wide:
        found["wide"] = 1
    if curve.means is not None:
        found |= {
            "mx": _base64(curve.means[0], kind),
            "my": _base64(curve.means[1], "<f4"),
            "mc": _base64(curve.means[2], "<u4"),
        }
    return found


def _base64(values: Any, kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype=kind).tobytes()).decode()
