"""Do what the advice of a finding says, as a reader would who knows nothing about the planted fault."""

import re
from collections.abc import Callable
from typing import Any

from .settings import Settings

__all__ = ["CURES", "ONE_LINE", "cure"]

_RIGHT_CODE = {
    "parameters_not_trained": {
        "HeadNotInOptimizer", "BodyNotInOptimizer", "LayerNotInOptimizer", "StaleHead", "Detached", "BodyWithoutGrad",
        "FirstLayerDetached", "WithoutStep", "ClearedBeforeStep", "NormSkipped",
    },
    "eval_mode_in_training": {"EvalInInit", "EvalAfterValidation", "OneLayerInEval"},
    "evaluation_in_training_mode": {"TrainInValidation", "DropoutInValidation", "NoEvalHook"},
    "normalisation_off": {"NormSkipped"},
    "scheduler_not_stepping": {"ScheduleNotReturned", "ScheduleByEpochs", "ManualWithoutSchedule"},
    "gradients_not_cleared": {"ManualWithoutZeroGrad", "ZeroGradOverridden", "ZeroGradOnceAnEpoch"},
    "batch_leaks": {"CentredByBatch", "SoftmaxOverBatch", "ReshapedWrongly", "AttentionOverBatch"},
    "softmax_before_loss": {"SoftmaxInModel", "SoftmaxInStep", "SigmoidBeforeBce"},
    "wrong_loss_sign": {"NegatedLoss", "LogLikelihood"},
    "over_regularised": {"L1", "StrongL1"},
}  # fmt: skip
"""Kind to the classes whose code a reader of its advice would mend."""


def cure(settings: Settings, finding: Any) -> Settings:
    """Apply the advice of a finding. Settings that the advice does not touch stay as they are.

    Args:
        settings: The faulty training.
        finding: A finding about it. A rate that its advice names is used as it is.
    """
    for words, change in _WORDS.items():
        if words in finding.advice:
            return change(settings)
    named = re.search(r"\blr=(\d[\d.]*(?:e[-+]?\d+)?)", finding.advice)
    return CURES[finding.kind](settings, float(named[1]) if named else None)


def _without(settings: Settings, option: str) -> Settings:
    """Leave an option of the optimizer at its default."""
    return settings.but(optimizer_options=tuple(each for each in settings.optimizer_options if each[0] != option))


_WORDS: dict[str, Callable[[Settings], Settings]] = {
    "Scale the input": lambda settings: settings.but(inputs="standardised"),
    "decay more slowly": lambda settings: settings.but(schedule="cosine"),
    "warm-up of the schedule shorter": lambda settings: settings.but(schedule="warm-up"),
    "`eps=1e-8`": lambda settings: _without(settings, "eps"),
    "`momentum=0.9`": lambda settings: _without(settings, "momentum"),
    "gradient_clip_val=1.0": lambda settings: settings.but(trainer_options=(("gradient_clip_val", 1.0),)),
    "without the factor": lambda settings: settings.but(loss_factor=1.0),
}
"""Words of an advice to what a reader changes."""


def _mend_code(kind: str) -> Callable[[Settings, float | None], Settings]:
    def mend(settings: Settings, _: float | None) -> Settings:
        return settings.but(module="Net") if settings.module in _RIGHT_CODE[kind] else settings

    return mend


def _rate(factor: float) -> Callable[[Settings, float | None], Settings]:
    """Take the rate that the advice names. Without one, multiply the rate by this factor."""

    def change(settings: Settings, named: float | None) -> Settings:
        return settings.but(rate=named) if named else settings.times_rate(factor)

    return change


def _kaiming(settings: Settings, _: float | None) -> Settings:
    """Draw the weights by Kaiming's rule: ``InitOverride("kaiming_normal", bias="zeros")``."""
    return settings.but(override_init=True)


def _relu_and_kaiming(settings: Settings, named: float | None) -> Settings:
    """Saturating activations become ReLU, with Kaiming's weights."""
    saturates = settings.activation in ("sigmoid", "tanh", "hardsigmoid", "hardtanh")
    return _kaiming(settings.but(activation="relu") if saturates else settings, named)


def _dead(settings: Settings, named: float | None) -> Settings:
    """LeakyReLU, with Kaiming's weights and biases of zero."""
    return _kaiming(settings.but(activation="leaky_relu"), named)


def _gradient(settings: Settings, named: float | None) -> Settings:
    """Clip the gradients, and draw the weights by Kaiming's rule."""
    return _kaiming(settings.but(trainer_options=(("gradient_clip_val", 1.0),)), named)


def _sign(settings: Settings, named: float | None) -> Settings:
    """Minimise the loss."""
    kept = tuple(option for option in settings.optimizer_options if option[0] != "maximize")
    return _mend_code("wrong_loss_sign")(settings.but(optimizer_options=kept), named)


def _regularise_less(settings: Settings, named: float | None) -> Settings:
    """Dropout of at most 0.1, weight decay of at most 1e-4, no penalty in the loss."""
    less = settings.but(dropout=min(settings.dropout, 0.1), weight_decay=min(settings.weight_decay, 1e-4))
    return _mend_code("over_regularised")(less, named)


def _normalise(settings: Settings, named: float | None) -> Settings:
    """Leave BatchNorm's options at their defaults, and call its layers."""
    return _mend_code("normalisation_off")(settings.but(batch_norm_options=()), named)


def _nothing(settings: Settings, _: float | None) -> Settings:
    return settings


CURES: dict[str, Callable[[Settings, float | None], Settings]] = {
    "non_finite": _rate(0.1),
    "wrong_loss_sign": _sign,
    "symmetric_units": _kaiming,
    "dead_units": _dead,
    "saturated_units": _relu_and_kaiming,
    "exploding_activations": _kaiming,
    "vanishing_activations": _relu_and_kaiming,
    "exploding_gradient": _gradient,
    "vanishing_gradient": _relu_and_kaiming,
    "learning_rate_too_high": _rate(0.1),
    "learning_rate_too_low": _rate(30.0),
    "update_too_small": _rate(30.0),
    "over_regularised": _regularise_less,
    "loss_not_falling": _nothing,
    "normalisation_off": _normalise,
    "input_not_centred": lambda settings, _: settings.but(inputs="standardised"),
    "wrong_initial_loss": _nothing,
    "parameters_not_trained": _mend_code("parameters_not_trained"),
    "eval_mode_in_training": _mend_code("eval_mode_in_training"),
    "evaluation_in_training_mode": _mend_code("evaluation_in_training_mode"),
    "scheduler_not_stepping": _mend_code("scheduler_not_stepping"),
    "gradients_not_cleared": _mend_code("gradients_not_cleared"),
    "batch_leaks": _mend_code("batch_leaks"),
    "softmax_before_loss": _mend_code("softmax_before_loss"),
}
"""Kind of finding to what its advice changes."""

ONE_LINE = frozenset(CURES) - {"loss_not_falling", "non_finite", "input_not_centred", "wrong_initial_loss"}
"""Kinds whose advice is a line of code."""
