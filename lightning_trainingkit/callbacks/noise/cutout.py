"""Train on images with a square cut out."""

from typing import Literal

import torch

from lightning_trainingkit._lightning import L
from lightning_trainingkit.callbacks.noise.training_batch import BatchCallback
from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional.image_batch import ImageBatch, Key
from lightning_trainingkit.functional.mixing import cutout
from lightning_trainingkit.functional.mixing_draws import random_boxes

__all__ = ["Cutout"]


class Cutout(BatchCallback):
    """Fill a random square of each training image, on the device of the batch; evaluation is untouched.

    The centre of the square is any pixel with the same probability. The border of the image clips the square, so that
    parts of many squares lie outside. Targets stay as they are. ``training_step`` gets a new batch, and the images of
    the user's batch are not changed. Random numbers come from a stream of the callback's own.

    Args:
        size: Side of the square in pixels. The paper found 16 best for CIFAR-10 and 8 for CIFAR-100, of 32 pixels.
        draw: ``"image"`` draws a square for each image, ``"batch"`` one for all images.
        probability: Probability that an image (or a batch, if ``draw`` says so) has a square.
        until: Share of the training after which no image is changed, such as 0.9.
        fill: Value of the filled pixels. 0 is the mean of images that are normalised by channel, as in the paper.
        image: Key or index of the images in the batch. None finds them in pairs and under usual names.
        seed: Seed of the random squares. None takes torch's seed at the start of the fit.

    Raises:
        TypeError: If ``size`` is no integer, or if byte images would be filled with a fraction.
        ValueError: If an argument is out of its range, or the square is larger than the images.

    Example:
        >>> import lightning as L
        >>> trainer = L.Trainer(callbacks=[Cutout(16)], logger=False, enable_checkpointing=False)

    References:
        DeVries and Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", 2017,
        arXiv:1708.04552.
    """

    order = 1

    def __init__(
        self,
        size: int,
        *,
        draw: Literal["batch", "image"] = "image",
        probability: float = 1.0,
        until: float = 1.0,
        fill: float = 0.0,
        image: Key | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(probability=probability, until=until, image=image, seed=seed)
        self.size = _check.integer("size", size, "It is a side in pixels: try a quarter to half of the image.", least=1)
        _check.one_of("draw", draw, ("batch", "image"), "Draw a square for each image, or one for the batch.")
        self.draw = draw
        self.fill = _check.number("fill", fill, "0 is the mean of normalised images.")

    def start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: ImageBatch) -> None:
        """Refuse a square larger than the images, and a fill that bytes cannot hold."""
        height, width = batch.images.shape[-2:]
        if self.size > min(height, width):
            raise ValueError(
                f"`size` must be at most the shorter side of the images, {min(height, width)} pixels, got {self.size}. "
                "Try a quarter to half of it."
            )
        dtype = batch.images.dtype
        if not dtype.is_floating_point and self.fill != torch.tensor(self.fill).to(dtype).item():
            raise TypeError(
                f"`fill` must be a value that images of {dtype} can hold, got {self.fill:g}. "
                "Try 0, or convert the images to floats."
            )

    def change(self, batch: ImageBatch, generator: torch.Generator) -> ImageBatch:
        """Fill a square of each image, or of some of them."""
        images = batch.images
        count = 1 if self.draw == "batch" else len(images)
        boxes = random_boxes(torch.full((count, 2), self.size), tuple(images.shape[-2:]), generator)
        if self.probability < 1:
            boxes[torch.rand(count, generator=generator) >= self.probability] = 0  # an empty box
        return batch.replaced(cutout(images, boxes, self.fill))
