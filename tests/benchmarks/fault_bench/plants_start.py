"""Faults that a training starts with: weights, activations and data."""

from .plant import EXPLODES, NORMED, PLAIN, SAME_RATE, VANISHES, Plant, by_optimizer, change, init, kinds

__all__ = ["DATA", "UNITS", "WEIGHTS"]

WEIGHTS: dict[str, Plant] = {
    "constant weights": Plant(
        kinds("symmetric_units"),
        {"edge": init(("constant", 0.05), ("noise", 1e-7)), "extreme": init(("constant", 0.02))},
        ("mlp", "cnn", "cnn_bn", "transformer"),
    ),
    "zero weights": Plant(
        kinds("symmetric_units", "dead_units") | VANISHES,
        {"edge": init(("constant", 0.0), ("noise", 1e-7)), "extreme": init(("constant", 0.0))},
        PLAIN,
    ),
    "weights too small": Plant(VANISHES, {"edge": init(("scale", 0.1)), "extreme": init(("scale", 0.001))}, PLAIN),
    "weights too large": Plant(
        EXPLODES,
        {"edge": by_optimizer("scale", sgd=10.0, adamw=30.0), "extreme": init(("scale", 100.0))},
        PLAIN,
    ),
    "weights from N(0, 1)": Plant(
        EXPLODES,
        {"edge": by_optimizer("normal", sgd=1.0, adamw=2.0), "extreme": init(("normal", 3.0))},
        (*PLAIN, "transformer"),
    ),
    "deep, weights from N(0, 0.01)": Plant(
        VANISHES,
        {"edge": change(depth=4, init=(("normal", 0.03),)), "extreme": change(depth=8, init=(("normal", 0.01),))},
        ("mlp",),
    ),
    "deep and plain": Plant(VANISHES, {"edge": change(depth=12), "extreme": change(depth=30)}, ("mlp",)),
    "deep, gain too large": Plant(
        EXPLODES,
        {
            "edge": change(depth=8, init=(("kaiming", 0), ("scale", 2.5))),
            "extreme": change(depth=16, init=(("kaiming", 0), ("scale", 6.0))),
        },
        ("mlp",),
    ),
    "head too large": Plant(
        EXPLODES | {"learning_rate_too_high"},
        {"edge": init(("head", 10.0)), "edge x50": init(("head", 50.0)), "extreme": init(("head", 200.0))},
        optimizers=("sgd",),
    ),
    "dead units": Plant(
        kinds("dead_units"),
        {
            "edge 50 %": init(("dead", 0.5)),
            "edge 80 %": init(("dead", 0.8)),
            "extreme 100 %": init(("dead", 1.0)),
        },
        PLAIN,
        base=lambda settings: settings.but(width=16) if settings.model == "mlp" else settings,
    ),
    "dead units, with BatchNorm": Plant(kinds("dead_units"), {"extreme 100 %": init(("dead", 1.0))}, NORMED),
    "negative biases": Plant(
        kinds("dead_units"), {"edge": init(("bias", -2.0)), "extreme": init(("bias", -20.0))}, PLAIN
    ),
}

_SATURATION = kinds("saturated_units", "vanishing_gradient")
UNITS: dict[str, Plant] = {
    "sigmoid layers": Plant(
        _SATURATION,
        {"edge": change(activation="sigmoid", depth=4), "extreme": change(activation="sigmoid", depth=12)},
        ("mlp",),
    ),
    "sigmoid convolutions": Plant(_SATURATION, {"edge": change(activation="sigmoid")}, ("cnn",)),
    "sigmoid with large biases": Plant(
        _SATURATION,
        {
            "edge": change(activation="sigmoid", init=(("bias", 6.0),)),
            "extreme": change(activation="sigmoid", init=(("bias", 30.0),)),
        },
        PLAIN,
    ),
    "tanh with large weights": Plant(
        kinds("saturated_units"),
        {
            "edge": change(activation="tanh", init=(("scale", 15.0),)),
            "extreme": change(activation="tanh", init=(("scale", 100.0),)),
        },
        PLAIN,
    ),
    "tanh with raw pixels": Plant(
        kinds("saturated_units"),
        {
            "edge": change(activation="tanh", inputs="0..255"),
            "extreme": change(activation="tanh", inputs="0..65535"),
        },
        PLAIN,
        ("sgd",),
    ),
    "hard tanh with large weights": Plant(
        kinds("saturated_units"),
        {
            "edge": change(activation="hardtanh", init=(("scale", 10.0),)),
            "extreme": change(activation="hardtanh", init=(("scale", 100.0),)),
        },
        PLAIN,
    ),
    "hard sigmoid with large weights": Plant(
        _SATURATION,
        {
            "edge": change(activation="hardsigmoid", init=(("scale", 30.0),)),
            "extreme": change(activation="hardsigmoid", init=(("scale", 300.0),)),
        },
        PLAIN,
    ),
}

DATA: dict[str, Plant] = {
    "labels shuffled": Plant(
        kinds("loss_not_falling"), {"edge": change(labels="mostly noise"), "extreme": change(labels="shuffled")}
    ),
    "labels shifted": Plant(kinds("loss_not_falling"), {"extreme": change(labels="shifted")}),
    "images divided twice": Plant(
        VANISHES | SAME_RATE,
        {"edge": change(inputs="divided twice"), "extreme": change(inputs="divided thrice")},
        PLAIN,
    ),
    "images all zero": Plant(kinds("loss_not_falling", "dead_units") | VANISHES, {"extreme": change(inputs="zero")}),
    "images not scaled": Plant(
        EXPLODES | {"learning_rate_too_high"},
        {"edge": change(inputs="0..255"), "extreme": change(inputs="0..65535")},
        PLAIN,
        ("sgd",),
    ),
    "images with NaN": Plant(
        kinds("non_finite"), {"edge": change(inputs="one nan"), "extreme": change(inputs="many nan")}
    ),
}
