"""Train on blends of pairs of images."""

from typing import Literal

import torch

from lightning_trainingkit.callbacks.noise.blending import BlendDraws, BlendingCallback
from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.image_batch import Key
from lightning_trainingkit.functional.mixing_draws import random_partners

__all__ = ["Mixup"]


class Mixup(BlendingCallback):
    """Replace each training batch by blends of pairs of its images; evaluation is untouched.

    ``x' = w x_i + (1 - w) x_j`` and ``loss' = w loss(y_i) + (1 - w) loss(y_j)``, ``w`` drawn from Beta(alpha, alpha).

    - **Pair** (default): the module's own ``training_step`` is called with each of the two hard targets. Losses, logged
      values and torchmetrics are blended. The layers run once, unless their inputs depend on the targets.
    - **Soft**: the step is called once, with class probabilities ``(N, C)``.

    Args:
        num_classes: Number of classes ``C``, needed to turn class indices into soft targets. With ``pair`` the class
            indices of the first batch are checked against it.
        alpha: Strength of the blending, at least 0.01. 0.2 suits ImageNet, 1.0 CIFAR-10 (the paper's choices).
        targets: ``pair``, or ``soft`` for steps that take probabilities.
        draw: ``batch`` draws one ``w`` for a batch. ``image`` draws one for each image, with ``soft`` alone.
        probability: Probability that a batch, or an image with ``draw="image"``, is blended.
        until: Share of the training after which nothing is blended. 0.9 leaves the last tenth to real images.
        image: Key or index of the images in the batch, if they cannot be told.
        target: Key or index of the target in the batch, if it cannot be told.
        seed: Seed of the callback's own random numbers. None takes torch's seed at the start of the fit.

    Raises:
        TypeError: If a value has the wrong type, or the target of the first batch has no blend.
        ValueError: If a value is out of range.

    Example:
        >>> import lightning as L
        >>> trainer = L.Trainer(callbacks=[Mixup(10, until=0.9)], logger=False, enable_checkpointing=False)

    References:
        Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018, arXiv:1710.09412.
    """

    pixels = False

    def __init__(
        self,
        num_classes: int | None = None,
        alpha: float = 0.2,
        *,
        targets: Literal["pair", "soft"] = "pair",
        draw: Literal["batch", "image"] = "batch",
        probability: float = 1.0,
        until: float = 1.0,
        image: Key | None = None,
        target: Key | None = None,
        seed: int | None = None,
    ) -> None:
        options = {"probability": probability, "until": until, "image": image, "target": target, "seed": seed}
        super().__init__(num_classes, targets, draw, **options)
        self.alpha = _check.number("alpha", alpha, "To train without blends, leave the callback out.", least=0.01)
        if draw == "image" and targets == "pair":
            raise ValueError(
                "`draw` must be 'batch' for targets='pair', got 'image': the loss of a batch cannot be weighted by "
                "image. Use draw='batch' or targets='soft'."
            )

    def draws(self, count: int, size: tuple[int, ...], generator: torch.Generator) -> BlendDraws | None:
        """Draw partners and weights."""
        weights = self.draw_weights(count, self.alpha, generator)
        return None if weights is None else BlendDraws(random_partners(count, generator), weights)
