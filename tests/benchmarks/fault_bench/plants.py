"""The faults: what each changes, in grades, and which kinds of finding name its cause."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .settings import MODELS, OPTIMIZERS, Settings

__all__ = ["NO_KIND", "PLANTS", "Plant"]

Change = Callable[[Settings], Settings]

PLAIN = ("mlp", "cnn")  # without a norm
NORMED = ("cnn_bn", "resnet")
SAME_RATE = frozenset({"learning_rate_too_low", "update_too_small"})
TOO_HIGH = frozenset({"learning_rate_too_high", "non_finite", "exploding_gradient", "exploding_activations"})
EXPLODES = frozenset({"exploding_activations", "exploding_gradient", "non_finite"})
VANISHES = frozenset({"vanishing_activations", "vanishing_gradient"})

NO_KIND = {
    "a single wrong label in many": "no effect on the accuracy",
    "classes unbalanced": "a property of the data: no statistic of the run is out of order",
    "no activation between the layers": "a linear model trains well, and digits are nearly linear",
    "squared error on class numbers": "it trains, on a question that nobody asked",
    "softmax missing before nll_loss": "the scores still order the classes",
    "layers frozen by accident": "looks the same as layers frozen on purpose",
    "a list in place of a ModuleList": "Lightning and torch never hear of these parameters",
    "augmentation too heavy, or on validation": "the images that the model sees are what they are",
    "clipping not applied, unfrozen too late, EMA never updated, initialisation overwritten": "an intention, unseen",
    "batch of one with BatchNorm": "it trains, slowly, as an instance norm",
    "ranks out of step": "needs several processes",
}
"""Faults of the published taxonomies that no kind of finding covers."""


@dataclass(frozen=True)
class Plant:
    """A fault.

    Args:
        expect: Kinds of finding that name its cause.
        grades: ``edge`` and ``extreme`` (further ones begin with these words) to the change of the settings.
        models: Models where the fault can be.
        optimizers: Optimizers where it can be.
        verify: What the run must show, in ``witness``. Faults without it must do harm.
        base: Change of the healthy twin.
    """

    expect: frozenset[str]
    grades: Mapping[str, Change]
    models: tuple[str, ...] = MODELS
    optimizers: tuple[str, ...] = OPTIMIZERS
    verify: str = ""
    base: Change = lambda settings: settings


def _kinds(*names: str) -> frozenset[str]:
    return frozenset(names)


def _change(**changes: object) -> Change:
    return lambda settings: settings.but(**changes)


def _rate(factor: float) -> Change:
    return lambda settings: settings.times_rate(factor)


def _init(*changes: tuple[str, float]) -> Change:
    return lambda settings: settings.but(init=changes)


def _by_optimizer(what: str, sgd: float, adamw: float) -> Change:
    """Grade a fault for each optimizer, since AdamW bears what SGD does not."""

    def change(settings: Settings) -> Settings:
        number = sgd if settings.optimizer == "sgd" else adamw
        if what == "rate":
            return settings.times_rate(number)
        return settings.but(**({"init": (("scale", number),)} if what == "scale" else {"weight_decay": number}))

    return change


def _net(name: str, **changes: object) -> Change:
    return lambda settings: settings.but(module=name, **changes)


def _untrained(name: str, models: tuple[str, ...] = MODELS) -> Plant:
    return Plant(_kinds("parameters_not_trained"), {"extreme": _net(name)}, models, verify="not trained")


_RATES: dict[str, Plant] = {
    "rate too low": Plant(SAME_RATE, {"edge": _rate(1 / 30), "extreme": _change(rate=1e-8)}, PLAIN),
    "rate too low, with norms": Plant(
        SAME_RATE, {"edge": _rate(1e-3), "extreme": _change(rate=1e-8)}, (*NORMED, "transformer")
    ),
    "rate too high": Plant(TOO_HIGH, {"edge": _rate(10), "extreme": _change(rate=1e3)}, (*PLAIN, "transformer")),
    "rate too high, with BatchNorm": Plant(
        TOO_HIGH, {"edge": _by_optimizer("rate", sgd=10, adamw=300), "extreme": _change(rate=1e3)}, NORMED
    ),
    "rate decays at once": Plant(
        SAME_RATE, {"edge": _change(schedule="fast decay"), "extreme": _change(schedule="faster decay")}
    ),
    "warm-up never ends": Plant(
        SAME_RATE, {"edge": _change(schedule="long warm-up"), "extreme": _change(schedule="endless warm-up")}
    ),
    "clipped to nothing": Plant(
        SAME_RATE,
        {
            "edge": _change(trainer_options=(("gradient_clip_val", 1e-2),)),
            "extreme": _change(trainer_options=(("gradient_clip_val", 1e-6),)),
        },
        optimizers=("sgd",),
    ),
    "loss scaled down": Plant(
        SAME_RATE | {"vanishing_gradient"},
        {"edge": _change(loss_factor=1 / 50), "extreme": _change(loss_factor=1e-6)},
        optimizers=("sgd",),
    ),
    "loss summed": Plant(
        TOO_HIGH, {"edge": _net("SummedLoss"), "extreme": _net("SummedLoss", loss_factor=64.0)}, optimizers=("sgd",)
    ),
    "momentum too high": Plant(
        TOO_HIGH,
        {
            "edge": _change(optimizer_options=(("momentum", 0.998),)),
            "extreme": _change(optimizer_options=(("momentum", 0.9999),)),
        },
        optimizers=("sgd",),
    ),
    "Adam's epsilon too large": Plant(
        SAME_RATE,
        {"edge": _change(optimizer_options=(("eps", 3.0),)), "extreme": _change(optimizer_options=(("eps", 1e4),))},
        optimizers=("adamw",),
    ),
}

_WEIGHTS: dict[str, Plant] = {
    "constant weights": Plant(
        _kinds("symmetric_units"),
        {"edge": _init(("constant", 0.05), ("noise", 1e-7)), "extreme": _init(("constant", 0.02))},
        ("mlp", "cnn", "cnn_bn", "transformer"),
    ),
    "zero weights": Plant(
        _kinds("symmetric_units", "dead_units") | VANISHES,
        {"edge": _init(("constant", 0.0), ("noise", 1e-7)), "extreme": _init(("constant", 0.0))},
        PLAIN,
    ),
    "weights too small": Plant(VANISHES, {"edge": _init(("scale", 0.1)), "extreme": _init(("scale", 0.001))}, PLAIN),
    "weights too large": Plant(
        EXPLODES,
        {"edge": _by_optimizer("scale", sgd=10.0, adamw=30.0), "extreme": _init(("scale", 100.0))},
        PLAIN,
    ),
    "weights from N(0, 1)": Plant(
        EXPLODES, {"edge": _init(("normal", 1.0)), "extreme": _init(("normal", 3.0))}, (*PLAIN, "transformer")
    ),
    "deep, weights from N(0, 0.01)": Plant(
        VANISHES,
        {"edge": _change(depth=4, init=(("normal", 0.03),)), "extreme": _change(depth=8, init=(("normal", 0.01),))},
        ("mlp",),
    ),
    "deep and plain": Plant(VANISHES, {"edge": _change(depth=12), "extreme": _change(depth=30)}, ("mlp",)),
    "deep, gain too large": Plant(
        EXPLODES,
        {
            "edge": _change(depth=8, init=(("kaiming", 0), ("scale", 2.5))),
            "extreme": _change(depth=16, init=(("kaiming", 0), ("scale", 6.0))),
        },
        ("mlp",),
    ),
    "head too large": Plant(
        EXPLODES | {"learning_rate_too_high"},
        {"edge": _init(("head", 10.0)), "edge x50": _init(("head", 50.0)), "extreme": _init(("head", 200.0))},
        optimizers=("sgd",),
    ),
    "dead units": Plant(
        _kinds("dead_units"),
        {
            "edge 50 %": _init(("dead", 0.5)),
            "edge 80 %": _init(("dead", 0.8)),
            "extreme 100 %": _init(("dead", 1.0)),
        },
        PLAIN,
        base=lambda settings: settings.but(width=16) if settings.model == "mlp" else settings,
    ),
    "dead units, with BatchNorm": Plant(_kinds("dead_units"), {"extreme 100 %": _init(("dead", 1.0))}, NORMED),
    "negative biases": Plant(
        _kinds("dead_units"), {"edge": _init(("bias", -2.0)), "extreme": _init(("bias", -20.0))}, PLAIN
    ),
}

_SATURATION = _kinds("saturated_units", "vanishing_gradient")
_UNITS: dict[str, Plant] = {
    "sigmoid layers": Plant(
        _SATURATION,
        {"edge": _change(activation="sigmoid", depth=4), "extreme": _change(activation="sigmoid", depth=12)},
        ("mlp",),
    ),
    "sigmoid convolutions": Plant(_SATURATION, {"edge": _change(activation="sigmoid")}, ("cnn",)),
    "sigmoid with large biases": Plant(
        _SATURATION,
        {
            "edge": _change(activation="sigmoid", init=(("bias", 6.0),)),
            "extreme": _change(activation="sigmoid", init=(("bias", 30.0),)),
        },
        PLAIN,
    ),
    "tanh with large weights": Plant(
        _kinds("saturated_units"),
        {
            "edge": _change(activation="tanh", init=(("scale", 15.0),)),
            "extreme": _change(activation="tanh", init=(("scale", 100.0),)),
        },
        PLAIN,
    ),
    "tanh with raw pixels": Plant(
        _kinds("saturated_units"),
        {
            "edge": _change(activation="tanh", inputs="0..255"),
            "extreme": _change(activation="tanh", inputs="0..65535"),
        },
        PLAIN,
        ("sgd",),
    ),
    "hard tanh with large weights": Plant(
        _kinds("saturated_units"),
        {
            "edge": _change(activation="hardtanh", init=(("scale", 10.0),)),
            "extreme": _change(activation="hardtanh", init=(("scale", 100.0),)),
        },
        PLAIN,
    ),
    "hard sigmoid with large weights": Plant(
        _SATURATION,
        {
            "edge": _change(activation="hardsigmoid", init=(("scale", 30.0),)),
            "extreme": _change(activation="hardsigmoid", init=(("scale", 300.0),)),
        },
        PLAIN,
    ),
}

_LOSSES: dict[str, Plant] = {
    "loss negated": Plant(
        _kinds("wrong_loss_sign"), {"edge": _net("NegatedLoss", loss_factor=0.1), "extreme": _net("NegatedLoss")}
    ),
    "likelihood minimised": Plant(
        _kinds("wrong_loss_sign"), {"edge": _net("LogLikelihood", loss_factor=0.1), "extreme": _net("LogLikelihood")}
    ),
    "optimizer maximises": Plant(
        _kinds("wrong_loss_sign"),
        {
            "edge": lambda settings: settings.times_rate(0.1).but(optimizer_options=(("maximize", True),)),
            "extreme": _change(optimizer_options=(("maximize", True),)),
        },
    ),
    "softmax in the model": Plant(
        _kinds("softmax_before_loss"), {"extreme": _net("SoftmaxInModel")}, verify="probabilities"
    ),
    "softmax in the step": Plant(
        _kinds("softmax_before_loss"), {"edge": _net("SoftmaxInStep")}, verify="probabilities"
    ),
    "sigmoid before its loss": Plant(
        _kinds("softmax_before_loss"), {"extreme": _net("SigmoidBeforeBce")}, verify="probabilities"
    ),
    "logarithm of zero": Plant(_kinds("non_finite"), {"extreme": _net("LogOfZero")}),
    "root of zero": Plant(_kinds("non_finite"), {"edge": _net("RootOfZero")}),
    "weight decay": Plant(
        _kinds("over_regularised"),
        {
            "edge": _by_optimizer("weight decay", sgd=0.1, adamw=30.0),
            "extreme": _by_optimizer("weight decay", sgd=1.0, adamw=100.0),
        },
        (*PLAIN, "transformer"),
    ),
    "dropout": Plant(
        _kinds("over_regularised"), {"edge": _change(dropout=0.96), "extreme": _change(dropout=0.99)}, PLAIN
    ),
    "L1 penalty": Plant(_kinds("over_regularised"), {"edge": _net("L1"), "extreme": _net("StrongL1")}),
}

_DATA: dict[str, Plant] = {
    "labels shuffled": Plant(
        _kinds("loss_not_falling"), {"edge": _change(labels="mostly noise"), "extreme": _change(labels="shuffled")}
    ),
    "labels shifted": Plant(_kinds("loss_not_falling"), {"extreme": _change(labels="shifted")}),
    "images divided twice": Plant(
        VANISHES | SAME_RATE,
        {"edge": _change(inputs="divided twice"), "extreme": _change(inputs="divided thrice")},
        PLAIN,
    ),
    "images all zero": Plant(_kinds("loss_not_falling", "dead_units") | VANISHES, {"extreme": _change(inputs="zero")}),
    "images not scaled": Plant(
        EXPLODES | {"learning_rate_too_high"},
        {"edge": _change(inputs="0..255"), "extreme": _change(inputs="0..65535")},
        PLAIN,
        ("sgd",),
    ),
    "images with NaN": Plant(
        _kinds("non_finite"), {"edge": _change(inputs="one nan"), "extreme": _change(inputs="many nan")}
    ),
}

_SILENT: dict[str, Plant] = {
    "head not in the optimizer": _untrained("HeadNotInOptimizer"),
    "body not in the optimizer": _untrained("BodyNotInOptimizer"),
    "layer not in the optimizer": Plant(
        _kinds("parameters_not_trained"), {"edge": _net("LayerNotInOptimizer")}, verify="not trained"
    ),
    "head replaced after the optimizer": _untrained("StaleHead"),
    "features detached": _untrained("Detached"),
    "body under no_grad": _untrained("BodyWithoutGrad"),
    "first layer detached": Plant(
        _kinds("parameters_not_trained"), {"edge": _net("FirstLayerDetached")}, PLAIN, verify="not trained"
    ),
    "no step": _untrained("WithoutStep"),
    "cleared before the step": _untrained("ClearedBeforeStep"),
    "eval mode from the start": Plant(
        _kinds("eval_mode_in_training"), {"extreme": _net("EvalInInit")}, NORMED, verify="eval in training"
    ),
    "eval mode, with dropout": Plant(
        _kinds("eval_mode_in_training"),
        {"edge": _net("EvalInInit", dropout=0.2)},
        ("mlp", "cnn", "transformer"),
        verify="eval in training",
    ),
    "eval mode after validation": Plant(
        _kinds("eval_mode_in_training"), {"edge": _net("EvalAfterValidation")}, NORMED, verify="eval in training"
    ),
    "one layer in eval mode": Plant(
        _kinds("eval_mode_in_training"), {"edge": _net("OneLayerInEval")}, NORMED, verify="eval in training"
    ),
    "training mode in validation": Plant(
        _kinds("evaluation_in_training_mode"),
        {"extreme": _net("TrainInValidation", dropout=0.3)},
        verify="training in evaluation",
    ),
    "dropout in validation": Plant(
        _kinds("evaluation_in_training_mode"),
        {"edge": _net("DropoutInValidation", dropout=0.3)},
        verify="training in evaluation",
    ),
    "no eval hook": Plant(
        _kinds("evaluation_in_training_mode"), {"extreme": _net("NoEvalHook")}, NORMED, verify="training in evaluation"
    ),
    "running statistics never move": Plant(
        _kinds("normalisation_off"),
        {"extreme": _change(batch_norm_options=(("momentum", 0.0),))},
        NORMED,
        verify="norm off",
    ),
    "norm layers skipped": Plant(
        _kinds("normalisation_off", "parameters_not_trained"), {"edge": _net("NormSkipped")}, NORMED, verify="norm off"
    ),
    "schedule not returned": Plant(
        _kinds("scheduler_not_stepping"), {"edge": _net("ScheduleNotReturned", schedule="cosine")}, verify="rate fixed"
    ),
    "schedule by epochs": Plant(
        _kinds("scheduler_not_stepping"), {"edge": _net("ScheduleByEpochs", schedule="cosine")}, verify="rate fixed"
    ),
    "schedule not stepped by hand": Plant(
        _kinds("scheduler_not_stepping"),
        {"extreme": _net("ManualWithoutSchedule", schedule="one cycle")},
        verify="rate fixed",
    ),
    "gradients kept by hand": Plant(
        _kinds("gradients_not_cleared"), {"extreme": _net("ManualWithoutZeroGrad")}, verify="gradients kept"
    ),
    "gradients kept by a hook": Plant(
        _kinds("gradients_not_cleared"), {"extreme": _net("ZeroGradOverridden")}, verify="gradients kept"
    ),
    "gradients cleared once an epoch": Plant(
        _kinds("gradients_not_cleared"), {"edge": _net("ZeroGradOnceAnEpoch")}, verify="gradients kept"
    ),
    "centred by the batch": Plant(_kinds("batch_leaks"), {"edge": _net("CentredByBatch")}, PLAIN, verify="leak"),
    "softmax over the batch": Plant(_kinds("batch_leaks"), {"edge": _net("SoftmaxOverBatch")}, verify="leak"),
    "reshape mixes images": Plant(_kinds("batch_leaks"), {"extreme": _net("ReshapedWrongly")}, verify="leak"),
    "attention over the batch": Plant(_kinds("batch_leaks"), {"extreme": _net("AttentionOverBatch")}, verify="leak"),
}

PLANTS: dict[str, Plant] = {**_RATES, **_WEIGHTS, **_UNITS, **_LOSSES, **_DATA, **_SILENT}
