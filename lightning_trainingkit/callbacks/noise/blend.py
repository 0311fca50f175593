"""Pick one of several blends for each batch."""

from collections.abc import Mapping
from typing import Any

import torch

from lightning_trainingkit._lightning import L
from lightning_trainingkit.callbacks.noise.blending import BlendDraws, BlendingCallback
from lightning_trainingkit.callbacks.noise.cutmix import CutMix
from lightning_trainingkit.callbacks.noise.mixup import Mixup
from lightning_trainingkit.functional.averaging import check_weights
from lightning_trainingkit.functional.image_batch import ImageBatch, Key

__all__ = ["Blend"]

_KINDS = {"Mixup": Mixup, "CutMix": CutMix}
_SHARED: dict[str, Any] = {"until": 1.0, "image": None, "target": None, "seed": None}


class Blend(BlendingCallback):
    """Pick Mixup or CutMix at random for each training batch; evaluation is untouched.

    Only one callback may blend a batch: two blends of one batch would have targets of up to four images.

    Args:
        blends: ``Mixup`` and ``CutMix`` objects, or dicts with ``class_path`` and ``init_args``. All must have the same
            ``targets`` and ``num_classes``.
        weights: Probability of each blend, with sum 1. None makes them equal.
        until: Share of the training after which nothing is blended. 0.9 leaves the last tenth to real images.
        image: Key or index of the images in the batch, if they cannot be told.
        target: Key or index of the target in the batch, if it cannot be told.
        seed: Seed of the callback's own random numbers. None takes torch's seed at the start of the fit.

    Raises:
        TypeError: If an entry is no blend.
        ValueError: If the entries do not fit to each other, or if the weights do not sum to 1.

    Example:
        >>> import lightning as L
        >>> from lightning_trainingkit import CutMix, Mixup
        >>> blend = Blend([Mixup(10, alpha=0.8), CutMix(10)], weights=[0.3, 0.7])
        >>> trainer = L.Trainer(callbacks=[blend], logger=False, enable_checkpointing=False)
    """

    def __init__(
        self,
        blends: list[Any],
        weights: list[float] | None = None,
        *,
        until: float = 1.0,
        image: Key | None = None,
        target: Key | None = None,
        seed: int | None = None,
    ) -> None:
        self.blends = [_build(each) for each in blends]
        if not self.blends:
            raise ValueError("`blends` must hold at least one blend, got none. Write Blend([Mixup(10), CutMix(10)]).")
        for each in self.blends:
            _refuse_differing(each, self.blends[0])
        first = self.blends[0]
        super().__init__(first.num_classes, first.targets, "batch", until=until, image=image, target=target, seed=seed)
        count = len(self.blends)
        self.weights = check_weights("weights", [1 / count] * count if weights is None else weights, count, "blend")

    def start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: ImageBatch) -> None:
        """Check the first batch for each blend."""
        for each in self.blends:
            each.start(trainer, pl_module, batch)

    def draws(self, count: int, size: tuple[int, ...], generator: torch.Generator) -> BlendDraws | None:
        """Draw a blend, then its draws."""
        weights = torch.tensor(self.weights, dtype=torch.float64)
        chosen = self.blends[int(torch.multinomial(weights, 1, generator=generator))]
        return chosen.draws(count, size, generator)


def _build(entry: Any) -> BlendingCallback:
    if isinstance(entry, Mapping) and set(entry) <= {"class_path", "init_args"} and "class_path" in entry:
        kind = _KINDS.get(str(entry["class_path"]).rpartition(".")[2])
        if kind is not None:
            return kind(**entry.get("init_args", {}))
    if isinstance(entry, Mixup | CutMix):
        return entry
    raise TypeError(
        f"`blends` must hold Mixup and CutMix objects, got {entry!r}. "
        "In YAML, write class_path: lightning_trainingkit.Mixup, and init_args."
    )


def _refuse_differing(blend: BlendingCallback, first: BlendingCallback) -> None:
    for name in ("targets", "num_classes"):
        if getattr(blend, name) != getattr(first, name):
            raise ValueError(
                f"`{name}` must be the same for all blends, got {getattr(first, name)!r} and {getattr(blend, name)!r}. "
                "The training step must get targets of one kind."
            )
    for name, default in _SHARED.items():
        if getattr(blend, name) != default:
            raise ValueError(
                f"`{name}` must be left out inside of Blend, got {getattr(blend, name)!r} for {type(blend).__name__}. "
                f"Give it to Blend."
            )
