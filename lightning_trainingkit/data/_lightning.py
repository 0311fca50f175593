"""The only file of the DataModules that touches Lightning's private parts."""

from typing import Any

from torch.utils.data import Dataset

from lightning_trainingkit._lightning import L, TrainerFn, UnrepeatedDistributedSampler

__all__ = ["unrepeated"]


def unrepeated(part: Dataset[Any], name: str, trainer: L.Trainer | None) -> UnrepeatedDistributedSampler | None:
    """Distribute the examples of ``part`` over the ranks, each once, where Lightning would repeat some.

    Lightning's own choice is ``DistributedSampler``. It gives each rank the same number of examples, and repeats the
    first ones for that: a metric over 359 images becomes a metric over 360.

    Args:
        part: The examples.
        name: Name of ``part``, for the error.
        trainer: The Trainer that asks for the loader, None without a Trainer.

    Returns:
        The sampler of this rank. None with one rank, with ``use_distributed_sampler=False`` (all data on each rank),
        and in a fit with ``overfit_batches``, for which Lightning chooses the samplers.

    Raises:
        ValueError: If there are fewer examples than ranks, on all ranks alike. A rank without a batch logs nothing, and
            the other ranks would wait for it.
    """
    if trainer is None or not trainer._accelerator_connector.use_distributed_sampler:
        return None
    if trainer.state.fn == TrainerFn.FITTING and trainer.overfit_batches > 0:  # type: ignore[attr-defined]
        return None
    place = trainer.distributed_sampler_kwargs
    if place is None or place["num_replicas"] == 1:
        return None
    count, ranks = len(part), place["num_replicas"]  # type: ignore[arg-type]
    if count < ranks:
        raise ValueError(
            f"`{name}` must hold at least one image for each rank, got {count} for {ranks} ranks. "
            "Use fewer devices or more images."
        )
    return UnrepeatedDistributedSampler(part, shuffle=False, **place)
