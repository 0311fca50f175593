"""What becomes of the entries of a batch beside its images and its target, when images are blended."""

from torch import Tensor

from lightning_trainingkit._lightning import rank_zero_info
from lightning_trainingkit.functional.image_batch import ImageBatch, describe

__all__ = ["check_others", "of_partners"]


def of_partners(batch: ImageBatch, images: Tensor, partner: Tensor) -> ImageBatch:
    """Return the blended images with what belongs to the partners: target, second target, weight of the sample, index.

    Args:
        batch: The batch.
        images: Blended images.
        partner: Index of each image's partner, on the CPU.
    """
    changed = batch.replaced(images)
    for key, value in batch.rows().items():
        changed = changed.put(key, value[partner.to(value.device, non_blocking=True)])
    return changed


def check_others(batch: ImageBatch, name: str, *, paired: bool, pastes: bool) -> None:
    """Refuse a second tensor of images, a mask beside another target of CutMix, and a second target in a single call.

    Args:
        batch: The first batch of a fit.
        name: Name of the callback.
        paired: Whether the step is called with each of two targets, and with all that belongs to it.
        pastes: Whether boxes are pasted.

    Raises:
        ValueError: If an entry would stay as it is, and be wrong beside blended images.
    """
    others = {key: value for key, value in batch.rows().items() if key != batch.target}
    for key, value in others.items():
        if value.shape == batch.images.shape and value.is_floating_point():
            raise ValueError(
                f"`batch` must hold one tensor of images for {name}, got {key!r} beside {batch.image!r} in "
                f"{describe(batch.whole)}. Leave it out of the batch, or blend in the data set."
            )
        is_mask = value.dim() >= 3 and value.shape[-2:] == batch.images.shape[-2:]
        if (pastes and is_mask) or (not paired and batch.is_usual_target(key)):
            raise ValueError(
                f"`batch` must hold one target for {name} with these options, got {key!r} beside {batch.target!r}. "
                "Use Mixup with targets='pair', which takes all targets from the same image."
            )
    if others and not paired:
        listed = ", ".join(repr(key) for key in others)
        rank_zero_info(
            f"{name} blends {batch.image!r} and {batch.target!r}. Other entries stay those of the image: {listed}."
        )
