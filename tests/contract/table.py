"""Every public callback, once: the arguments with which it goes through the ordeal, plain enough for YAML."""

import lightning as L

import lightning_trainingkit

CALLBACKS = {
    "BestCheckpoint": {"monitor": "val/loss", "mode": "min", "save_last": True},
    "ChannelsLast": {},
    "CommandCenter": {"group": "contract", "tags": ["toy"]},
    "EarlyStopping": {"monitor": "val/loss", "patience": 20, "smoothing": 0.5},
    "EpochSeed": {"seed": 1},
    "InitOverride": {"scheme": {"net.*": "kaiming_normal"}, "verbose": False},
}


def build(name: str) -> L.Callback:
    return getattr(lightning_trainingkit, name)(**CALLBACKS[name])
