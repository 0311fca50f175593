"""Reasons that the steps alone can see, as findings."""

from lightning_trainingkit.nn.diagnostics.finding import Finding

__all__ = ["REASONS", "detached_loss", "reason"]

REASONS: dict[str, str] = {
    "wrong_number_of_classes": "wrong",
    "labels_change": "wrong",
    "two_labels": "wrong",
    "frozen_parameters": "harmful",
    "rate_too_low": "harmful",
    "rate_too_high": "harmful",
    "model_too_small": "harmful",
    "too_few_steps": "advice",
    "step_draws": "advice",
    "several_optimizers": "advice",
    "other_terms": "advice",
    "labels_change_with_input": "advice",
    "starts_below_chance": "advice",
    "many_unused_classes": "advice",
}
"""Each kind of reason to its level, as ``KINDS`` has them for the findings of HealthReport."""


def reason(kind: str, where: str, value: float, message: str, advice: str) -> Finding:
    """Make a finding of a kind of ``REASONS``."""
    return Finding(kind, REASONS[kind], where, value, message, advice)


def detached_loss() -> Finding:
    """Say that the loss of the training step has no graph."""
    return Finding.of(
        "parameters_not_trained",
        "the loss",
        1.0,
        "The loss has no gradient: no trainable parameter takes part in it, or the graph is cut before it.",
        "Look for `detach()`, `.item()`, `.data`, `torch.no_grad()` and frozen layers between the input and the loss.",
    )
