"""Every public callback: the arguments with which it goes through the ordeal, plain enough for YAML."""

from pathlib import Path

import torch

import lightning_trainingkit
from lightning_trainingkit._lightning import L
from tests.toy import ResidualModule, ToyModule

ALWAYS = ["validate", "test", "predict"]

CALLBACKS = {
    "ActivationStats": {"every_n_steps": 2},
    "BatchAugmentation": {"policy": {"rotation": 20, "padding": 1}, "mean": [0.5], "std": [0.1]},
    "BestCheckpoint": {"monitor": "val/loss", "mode": "min", "save_last": True},
    "Blend": {
        "blends": [
            {"class_path": "lightning_trainingkit.Mixup", "init_args": {"num_classes": 2}},
            {"class_path": "lightning_trainingkit.CutMix", "init_args": {"num_classes": 2, "alpha": 0.5}},
        ],
        "weights": [0.25, 0.75],
    },
    "ChannelsLast": {},
    "CommandCenter": {"group": "contract", "tags": ["toy"]},
    "CutMix": {"num_classes": 2, "probability": 0.5},
    "Cutout": {"size": 2},
    "DropoutOverride": {"rates": {"net.4": 0.3, "net.0": 0.1}, "verbose": False},
    "DropConnect": {"rates": {"head": 0.2}, "verbose": False},
    "EarlyStopping": {"monitor": "val/loss", "patience": 20, "smoothing": 0.5},
    "EnsembleAverage": {"members": "members/*.ckpt", "stages": ALWAYS},
    "EpochSeed": {"seed": 1},
    "FractionalMaxPool": {"verbose": False},
    "GradientStats": {"layers": ["net.*"], "every_n_steps": 3},
    "HealthReport": {"every_n_steps": 2, "verbose": False},
    "InitOverride": {"scheme": {"net.*": "kaiming_normal"}, "verbose": False},
    "LearningRateTest": {"candidates": [0.03], "verbose": False},
    "Mixup": {"num_classes": 2, "until": 0.9},
    "MonteCarloDropout": {"passes": 3, "stages": ALWAYS},
    "ReestimateBatchNorm": {"batches": 3},
    "ReplaceActivation": {"to": {"net.2": "leaky_relu(0.1)"}, "verbose": False},
    "SnapshotCheckpoint": {"cycles": 2},
    "StochasticDepth": {"rate": 0.5, "verbose": False},
    "TestTimeAugmentation": {"views": "flip", "stages": ALWAYS},
    "TransferLearning": {
        "phases": [{"train": "head"}, {"train": "all", "start": 1, "lr_scale": 0.5}, {"train": "net.0", "patience": 9}],
        "warmup_steps": 6,
        "restore_best": True,
        "verbose": False,
    },
    "WeightPenalty": {"l1": 1e-3, "l2": 1e-3, "layers": ["net.0", "net.5"], "verbose": False},
}


BY_LARGEST_LOSS = {"monitor": "val/loss", "mode": "max"}  # the best is old at the end
CASES = {name: {name: arguments} for name, arguments in CALLBACKS.items()} | {
    "TransferLearning goes back to an old best": {
        "TransferLearning": {
            "phases": [{"train": "all"}, {"train": "head", "patience": 2}],
            "restore_best": True,
            "verbose": False,
            **BY_LARGEST_LOSS,
        }
    },
    "Mixup beside BatchAugmentation and Cutout": {
        "Mixup": {"alpha": 1.0},
        "BatchAugmentation": {"policy": {"padding": 1}, "mean": [0.5], "std": [0.1]},
        "Cutout": {"size": 1},
    },
    "ReplaceActivation with Maxout": {"ReplaceActivation": {"to": "maxout", "verbose": False}},
    "StochasticDepth skips branches": {"StochasticDepth": {"rate": 0.5, "mode": "batch", "verbose": False}},
    "WeightPenalty by proximal steps": {"WeightPenalty": {"l1": 0.05, "proximal": True, "verbose": False}},
    "EarlyStopping beside BestCheckpoint": {
        "EarlyStopping": {"patience": 20, **BY_LARGEST_LOSS},
        "BestCheckpoint": BY_LARGEST_LOSS,
    },
    "EarlyStopping beside BestCheckpoint on another metric": {
        "EarlyStopping": {"patience": 20, **BY_LARGEST_LOSS},
        "BestCheckpoint": {"monitor": "val/acc", "mode": "max", "save_last": True},
    },
}
"""Each callback alone, and further ones: the class that the case is about, then those beside it, to their arguments."""


SCHEDULED = "StochasticDepth and DropConnect with schedules"
"""A further case for two ranks."""

RESIDUAL = ("FractionalMaxPool", "StochasticDepth")


def module_of(case: str) -> type[ToyModule]:
    """The class of the module that a case trains."""
    return ResidualModule if case.startswith(RESIDUAL) else ToyModule


def build(case: str) -> list[L.Callback]:
    """The callback that the case is about, then those beside it."""
    return [getattr(lightning_trainingkit, name)(**arguments) for name, arguments in CASES[case].items()]


def write_members(folder: Path) -> None:
    """Write the members that the table's ensemble finds from this folder."""
    (folder / "members").mkdir(exist_ok=True)
    for seed in (1, 2):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            torch.save({"state_dict": ToyModule().state_dict()}, folder / "members" / f"{seed}.ckpt")
