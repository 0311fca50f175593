"""Reasons that the steps alone can see, as findings."""

from lightning_trainingkit.nn.diagnostics.finding import Finding

__all__ = ["REASONS", "reason"]

REASONS: dict[str, str] = {
    "wrong_number_of_classes": "wrong",
    "labels_change": "wrong",
    "two_labels": "wrong",
    "frozen_parameters": "harmful",
    "rate_too_low": "harmful",
    "rate_too_high": "harmful",
    "model_too_small": "harmful",
    "too_few_steps": "advice",
    "starts_below_chance": "advice",
    "many_unused_classes": "advice",
}
"""Each kind of reason to its level, as ``KINDS`` has them for the findings of HealthReport."""


def reason(kind: str, where: str, value: float, message: str, advice: str) -> Finding:
    """Make a finding of a kind of ``REASONS``."""
    return Finding(kind, REASONS[kind], where, value, message, advice)
