"""F1 of the first word, for our rules and for others."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["WORDS", "confusion", "f1_by_word", "macro_f1", "row"]

WORDS = (
    "diverged",
    "not_started",
    "noisy",
    "leaked",
    "overfit",
    "cut_too_early",
    "plateau",
    "underfit",
    "healthy",
)
_DRAWS = 2000


def f1_by_word(truth: Sequence[str], said: Sequence[str]) -> dict[str, float]:
    """F1 of each word that is right for some curve. ``unclear`` is right for none, and so always a miss."""
    found = {}
    for word in WORDS:
        right, wanted = sum(t == s == word for t, s in zip(truth, said, strict=True)), truth.count(word)
        if wanted:
            found[word] = 2 * right / (wanted + said.count(word))
    return found


def macro_f1(truth: Sequence[str], said: Sequence[str]) -> float:
    """Mean of F1 over the words."""
    return float(np.mean([*f1_by_word(truth, said).values()]))


def row(
    name: str, truth: Sequence[str], said: Sequence[str], peer: Sequence[str], goal: float | None
) -> dict[str, Any]:
    """Our macro F1 beside a peer's, with a 95 % interval by resampling the curves."""
    ours, others = macro_f1(truth, said), macro_f1(truth, peer)
    low, high = _interval(np.array(truth), np.array(said))
    numbers = {"ours": ours, "peer": others, "ratio": ours / max(others, 1e-9), "low": low, "high": high}
    return {
        "name": name,
        **{key: round(value, 4) for key, value in numbers.items()},
        "goal": goal,
        "ok": goal is None or ours >= goal,
    }


def _interval(truth: np.ndarray, said: np.ndarray) -> tuple[float, float]:
    chosen = np.random.default_rng(0).choice(len(truth), (_DRAWS, len(truth)))
    scores = []
    for word in WORDS:
        wanted, given = (truth == word)[chosen], (said == word)[chosen]
        both = wanted.sum(1) + given.sum(1)
        scores.append(np.where(wanted.any(1), 2 * (wanted & given).sum(1) / np.maximum(both, 1), np.nan))
    low, high = np.percentile(np.nanmean(scores, 0), [2.5, 97.5])
    return float(low), float(high)


def confusion(truth: Sequence[str], said: Sequence[str]) -> list[dict[str, Any]]:
    """For each right word: how often each word was said first."""
    scores = f1_by_word(truth, said)
    return [
        {
            "right word": word,
            "curves": truth.count(word),
            "F1": round(scores[word], 3),
            "said": ", ".join(
                f"{other} {times}"
                for other, times in Counter(s for t, s in zip(truth, said, strict=True) if t == word).most_common()
            ),
        }
        for word in WORDS
        if word in scores
    ]
