"""Families of healthy trainings. All must learn, and none may raise an alarm."""

from collections.abc import Callable

from .rates import RATES
from .settings import MODELS, OPTIMIZERS, Settings

__all__ = ["FAMILIES"]

ALL = tuple((model, optimizer) for model in MODELS for optimizer in OPTIMIZERS)
MIXED = (("mlp", "sgd"), ("cnn", "adamw"), ("cnn_bn", "sgd"), ("resnet", "adamw"), ("transformer", "adamw"))
PLAIN = (("mlp", "sgd"), ("mlp", "adamw"), ("cnn", "sgd"), ("cnn", "adamw"))
NORMED = (("cnn_bn", "sgd"), ("cnn_bn", "adamw"), ("resnet", "sgd"), ("resnet", "adamw"))
RAW = (("mlp", "adamw"), ("cnn", "adamw"), ("cnn_bn", "sgd"), ("cnn_bn", "adamw"), ("resnet", "sgd"))

Family = tuple[tuple[tuple[str, str], ...], Callable[[Settings], Settings]]


def _change(**changes: object) -> Callable[[Settings], Settings]:
    return lambda settings: settings.but(**changes)


FAMILIES: dict[str, Family] = {
    "best rate": (ALL, lambda settings: settings),
    "lowest good rate": (ALL, lambda settings: settings.but(rate=RATES[settings.model, settings.optimizer][1])),
    "highest good rate": (ALL, lambda settings: settings.but(rate=RATES[settings.model, settings.optimizer][2])),
    "dropout 0.5": (MIXED, _change(dropout=0.5, epochs=10)),
    "dropout 0.8": (
        (("mlp", "adamw"), ("cnn", "adamw"), ("cnn_bn", "sgd")),
        lambda settings: settings.times_rate(0.3).but(dropout=0.8, depth=2, width=512, epochs=20),
    ),
    "bf16": (MIXED, _change(trainer_options=(("precision", "bf16-mixed"),))),
    "images 0..1": (MIXED, _change(inputs="0..1", epochs=10)),
    "images 0..255": (RAW, _change(inputs="0..255")),
    "zero head": (MIXED, _change(init=(("head", 0.0),))),
    "zero last gains": ((("resnet", "sgd"), ("resnet", "adamw")), _change(init=(("zero gains", 0),))),
    "half of the labels noise": (MIXED, _change(labels="half noise", epochs=10)),
    "warm-up from 0": (MIXED, _change(schedule="warm-up")),
    "cosine schedule": (MIXED, _change(schedule="cosine")),
    "one-cycle schedule": (MIXED, _change(schedule="one cycle")),
    "step schedule": (MIXED, _change(schedule="step")),
    "regression": (MIXED, lambda settings: settings.times_rate(0.1).but(module="Regression", labels="ink")),
    "two losses": (MIXED, _change(module="TwoLosses")),
    "frozen front": (MIXED, _change(module="FrozenFront")),
    "new head": (NORMED, _change(module="NewHead", epochs=20)),
    "fine-tuning": (MIXED, _change(module="FineTuning")),
    "manual": (MIXED, _change(module="Manual")),
    "manual schedule": (MIXED, _change(module="ManualSchedule", schedule="cosine")),
    "manual accumulation": (MIXED, _change(module="ManualAccumulation", epochs=10)),
    "two optimizers": (MIXED, _change(module="TwoOptimizers", schedule="cosine")),
    "accumulation": (MIXED, _change(trainer_options=(("accumulate_grad_batches", 2),), epochs=10)),
    "clipping": (MIXED, _change(trainer_options=(("gradient_clip_val", 1.0),))),
    "clipping by value": (
        MIXED,
        _change(trainer_options=(("gradient_clip_val", 0.5), ("gradient_clip_algorithm", "value"))),
    ),
    "momentum copy": (MIXED, _change(module="Ema")),
    "frozen spare part": (MIXED, _change(module="SpareHead")),
    "label smoothing": (MIXED, _change(module="LabelSmoothing")),
    "tanh with Xavier": (PLAIN, _change(activation="tanh", init=(("xavier", 0),))),
    "weight decay": (MIXED, _change(weight_decay=1e-2)),
    "no weight decay": (MIXED, _change(weight_decay=0.0)),
    "batches of 16": (MIXED, lambda settings: settings.times_rate(0.3).but(batch_size=16, epochs=10)),
    "batches of 256": (MIXED, _change(batch_size=256, epochs=24)),
    "GELU": (MIXED, _change(activation="gelu")),
    "SiLU": (MIXED, _change(activation="silu")),
    "ELU": (PLAIN, _change(activation="elu")),
    "Kaiming": (PLAIN, _change(init=(("kaiming", 0),))),
    "eight layers with Kaiming": (
        (("mlp", "sgd"), ("mlp", "adamw")),
        lambda settings: settings.times_rate(0.3).but(depth=8, init=(("kaiming", 0),)),
    ),
    "log_softmax and nll_loss": (MIXED, _change(module="LogSoftmax")),
    "a sigmoid for each class": (MIXED, _change(module="Bce", epochs=10)),
    "two heads": (MIXED, _change(module="TwoHeads")),
    "Nesterov": ((("mlp", "sgd"), ("cnn", "sgd"), ("resnet", "sgd")), _change(optimizer_options=(("nesterov", True),))),
    "many epochs": ((("mlp", "adamw"), ("cnn_bn", "sgd")), _change(epochs=30)),
}
"""Name to the models and optimizers, and the change of the settings."""
