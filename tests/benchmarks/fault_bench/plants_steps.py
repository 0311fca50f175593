"""Faults of the step: its rate, its optimizer and its loss."""

from .plant import NORMED, PLAIN, SAME_RATE, TOO_HIGH, Plant, by_optimizer, change, kinds, net, rate

__all__ = ["LOSSES", "RATES_AND_STEPS"]

RATES_AND_STEPS: dict[str, Plant] = {
    "rate too low": Plant(SAME_RATE, {"edge": rate(1 / 30), "extreme": change(rate=1e-8)}, PLAIN),
    "rate too low, with norms": Plant(
        SAME_RATE, {"edge": rate(1e-3), "extreme": change(rate=1e-8)}, (*NORMED, "transformer")
    ),
    "rate too high": Plant(TOO_HIGH, {"edge": rate(10), "extreme": change(rate=1e3)}, (*PLAIN, "transformer")),
    "rate too high, with BatchNorm": Plant(
        TOO_HIGH, {"edge": by_optimizer("rate", sgd=10, adamw=300), "extreme": change(rate=1e3)}, NORMED
    ),
    "rate decays at once": Plant(
        SAME_RATE, {"edge": change(schedule="fast decay"), "extreme": change(schedule="faster decay")}
    ),
    "warm-up never ends": Plant(
        SAME_RATE, {"edge": change(schedule="long warm-up"), "extreme": change(schedule="endless warm-up")}
    ),
    "clipped to nothing": Plant(
        SAME_RATE,
        {
            "edge": change(trainer_options=(("gradient_clip_val", 1e-2),)),
            "extreme": change(trainer_options=(("gradient_clip_val", 1e-6),)),
        },
        optimizers=("sgd",),
    ),
    "loss scaled down": Plant(
        SAME_RATE | {"vanishing_gradient"},
        {"edge": change(loss_factor=1 / 50), "extreme": change(loss_factor=1e-6)},
        optimizers=("sgd",),
    ),
    "loss summed": Plant(
        TOO_HIGH, {"edge": net("SummedLoss"), "extreme": net("SummedLoss", loss_factor=64.0)}, optimizers=("sgd",)
    ),
    "momentum too high": Plant(
        TOO_HIGH,
        {
            "edge": change(optimizer_options=(("momentum", 0.998),)),
            "extreme": change(optimizer_options=(("momentum", 0.9999),)),
        },
        optimizers=("sgd",),
    ),
    "Adam's epsilon too large": Plant(
        SAME_RATE,
        {"edge": change(optimizer_options=(("eps", 3.0),)), "extreme": change(optimizer_options=(("eps", 1e4),))},
        optimizers=("adamw",),
    ),
}

LOSSES: dict[str, Plant] = {
    "loss negated": Plant(
        kinds("wrong_loss_sign"), {"edge": net("NegatedLoss", loss_factor=0.1), "extreme": net("NegatedLoss")}
    ),
    "likelihood minimised": Plant(
        kinds("wrong_loss_sign"), {"edge": net("LogLikelihood", loss_factor=0.1), "extreme": net("LogLikelihood")}
    ),
    "optimizer maximises": Plant(
        kinds("wrong_loss_sign"),
        {
            "edge": lambda settings: settings.times_rate(0.1).but(optimizer_options=(("maximize", True),)),
            "extreme": change(optimizer_options=(("maximize", True),)),
        },
    ),
    "softmax in the model": Plant(
        kinds("softmax_before_loss"), {"extreme": net("SoftmaxInModel")}, verify="probabilities"
    ),
    "softmax in the step": Plant(kinds("softmax_before_loss"), {"edge": net("SoftmaxInStep")}, verify="probabilities"),
    "sigmoid before its loss": Plant(
        kinds("softmax_before_loss"), {"extreme": net("SigmoidBeforeBce")}, verify="probabilities"
    ),
    "logarithm of zero": Plant(kinds("non_finite"), {"extreme": net("LogOfZero")}),
    "root of zero": Plant(kinds("non_finite"), {"edge": net("RootOfZero")}),
    "weight decay": Plant(
        kinds("over_regularised"),
        {
            "edge": by_optimizer("weight decay", sgd=0.1, adamw=30.0),
            "extreme": by_optimizer("weight decay", sgd=1.0, adamw=100.0),
        },
        (*PLAIN, "transformer"),
    ),
    "dropout": Plant(kinds("over_regularised"), {"edge": change(dropout=0.96), "extreme": change(dropout=0.99)}, PLAIN),
    "L1 penalty": Plant(kinds("over_regularised"), {"edge": net("L1"), "extreme": net("StrongL1")}),
}
