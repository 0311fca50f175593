"""Train on images with a box of another image."""

from typing import Literal

import torch

from lightning_trainingkit.callbacks.noise.blending import BlendDraws, BlendingCallback
from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.image_batch import Key
from lightning_trainingkit.functional.mixing_draws import cutmix_boxes, kept_share, random_partners

__all__ = ["CutMix"]


class CutMix(BlendingCallback):
    """Paste a box of another image into each training image; evaluation is untouched.

    ``loss' = w loss(y_i) + (1 - w) loss(y_j)``. ``w`` is the share of the image outside of the box. The area of the
    box before the border clips it is drawn from Beta(alpha, alpha).

    - **Pair** (default): the module's own ``training_step`` is called with each of the two hard targets, see ``Mixup``.
    - **Soft**: the step is called once, with class probabilities ``(N, C)``.
    - **Masks** of the images' size are pasted with their images. The step is called once.

    Args:
        num_classes: Number of classes ``C``, needed to turn class indices into soft targets. With ``pair`` the class
            indices of the first batch are checked against it.
        alpha: Strength of the blending, at least 0.01. 1.0 is the paper's choice: all areas are equally likely.
        targets: ``pair``, or ``soft`` for steps that take probabilities.
        draw: ``batch`` draws one box for a batch. ``image`` draws one for each image, with ``soft`` or masks alone.
        probability: Probability that a batch, or an image with ``draw="image"``, gets a box. 0.5 suits CIFAR-10.
        until: Share of the training after which nothing is pasted. 0.9 leaves the last tenth to real images.
        image: Key or index of the images in the batch, if they cannot be told.
        target: Key or index of the target in the batch, if it cannot be told.
        seed: Seed of the callback's own random numbers. None takes torch's seed at the start of the fit.

    Raises:
        TypeError: If a value has the wrong type, or the target of the first batch has no blend.
        ValueError: If a value is out of range.

    Example:
        >>> import lightning as L
        >>> trainer = L.Trainer(callbacks=[CutMix(10, probability=0.5)], logger=False, enable_checkpointing=False)

    References:
        Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features", ICCV 2019,
        arXiv:1905.04899.
    """

    pastes = True

    def __init__(
        self,
        num_classes: int | None = None,
        alpha: float = 1.0,
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
        self.alpha = _check.number("alpha", alpha, "To train without boxes, leave the callback out.", least=0.01)

    def draws(self, count: int, size: tuple[int, ...], generator: torch.Generator) -> BlendDraws | None:
        """Draw partners and boxes."""
        weights = self.draw_weights(count, self.alpha, generator)
        if weights is None:
            return None
        boxes = cutmix_boxes(weights, size, generator)
        kept = kept_share(boxes, size)
        return BlendDraws(random_partners(count, generator), kept, boxes) if bool((kept < 1).any()) else None
