"""A finding about a training, in words, and the kinds of findings that there are."""

from dataclasses import dataclass

__all__ = ["KINDS", "Finding"]

KINDS: dict[str, str] = {
    "non_finite": "harmful",
    "wrong_loss_sign": "harmful",
    "symmetric_units": "harmful",
    "dead_units": "harmful",
    "saturated_units": "harmful",
    "exploding_activations": "harmful",
    "vanishing_activations": "harmful",
    "exploding_gradient": "harmful",
    "vanishing_gradient": "harmful",
    "learning_rate_too_high": "harmful",
    "learning_rate_too_low": "harmful",
    "update_too_small": "harmful",
    "over_regularised": "harmful",
    "loss_not_falling": "harmful",
    "parameters_not_trained": "wrong",
    "eval_mode_in_training": "wrong",
    "evaluation_in_training_mode": "wrong",
    "normalisation_off": "wrong",
    "scheduler_not_stepping": "wrong",
    "gradients_not_cleared": "wrong",
    "batch_leaks": "wrong",
    "softmax_before_loss": "wrong",
    "input_not_centred": "advice",
    "wrong_initial_loss": "advice",
}
"""Each kind of finding to its level.

- **harmful**: it keeps the training from learning.
- **wrong**: the run does something that its author cannot want, whatever the accuracy.
- **advice**: it may be improved. It is no alarm.
"""


@dataclass(frozen=True)
class Finding:
    """One finding about a training.

    Args:
        kind: A key of ``KINDS``.
        level: ``"harmful"``, ``"wrong"`` or ``"advice"``.
        where: Name of the layer, parameter, optimizer or quantity that it is about.
        value: The number that it rests on. The message says its unit.
        message: What was seen, in one or two sentences.
        advice: What to do, with a line of Python or YAML.

    Example:
        >>> finding = Finding.of("dead_units", "net.1", 1.0, "All units are zero.", "Use LeakyReLU.")
        >>> finding.level
        'harmful'
    """

    kind: str
    level: str
    where: str
    value: float
    message: str
    advice: str

    @classmethod
    def of(cls, kind: str, where: str, value: float, message: str, advice: str) -> "Finding":
        """Make a finding with the level of its kind."""
        return cls(kind, KINDS[kind], where, value, message, advice)
