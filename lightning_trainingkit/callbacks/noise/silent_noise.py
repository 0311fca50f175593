"""Refuse a noise that a training batch did not have."""

from collections.abc import Mapping

from torch import nn

from lightning_trainingkit.nn.layers.noisy_forward import NoisyForward, Rated

__all__ = ["refuse_silent_noise"]


def refuse_silent_noise(noises: Mapping[str, Rated], layers: Mapping[str, nn.Module], by: str) -> None:
    """Raise ValueError if a layer had no noise in a training batch: it was not called, or was in eval mode.

    Frozen layers may be in eval mode, as ``TransferLearning`` leaves them.

    Args:
        noises: Noise by the name of its layer.
        layers: All modules by name.
        by: Name of the callback, for errors.
    """
    silent = [name for name, each in noises.items() if isinstance(each, NoisyForward) and not each.ran]
    if silent:
        raise ValueError(
            f"`{silent[0]}` must be called in training for {by}, got layers that the first batch did not call: "
            f"{', '.join(silent[:8])}. A function may use their weights directly. Leave them out."
        )
    still = [name for name, each in noises.items() if _evaluates(layers, name, each)]
    if still:
        raise ValueError(
            f"`{still[0]}` must be in training mode for {by}, got eval mode in the first batch, so that it had no "
            "noise. Call `train()` before the fit, or leave out the layers in eval mode: "
            f"{', '.join(still[:8])}."
        )


def _evaluates(layers: Mapping[str, nn.Module], name: str, noise: Rated) -> bool:
    """Whether a layer is in eval mode although it is not frozen. One without parameters is frozen with its parent."""
    module = noise.within if isinstance(noise, NoisyForward) else layers.get(name)
    while module is not None and name and next(module.parameters(), None) is None:
        if module.training:
            return False
        name = name.rpartition(".")[0]
        module = layers.get(name)
    return module is not None and not module.training and any(each.requires_grad for each in module.parameters())
