"""Random numbers of a callback's own, which depend on the seed and the place in the training alone."""

from hashlib import blake2b

import torch

from lightning_trainingkit._lightning import L

__all__ = ["RandomStream"]


class RandomStream:
    """A generator on the CPU for each batch, a pure function of (seed, name, rank, epoch, index of the batch).

    A resumed run draws the numbers of an unbroken run, with no other state than the seed. No other generator is read
    or changed.

    Args:
        name: Name of the callback. Callbacks with different names draw different numbers.
        seed: Any non-negative integer. None takes the seed of torch on rank 0, when the first batch of a fit arrives.
        by_rank: Whether ranks draw different numbers.

    Attributes:
        seed: The seed, None before it is known.
    """

    def __init__(self, name: str, seed: int | None, *, by_rank: bool = True) -> None:
        self.name = name
        self.seed = seed
        self._given = seed
        self._by_rank = by_rank
        self._generator = torch.Generator()

    def restart(self) -> None:
        """Forget the seed of the last fit, if the user gave none."""
        self.seed = self._given

    def generator(self, trainer: L.Trainer) -> torch.Generator:
        """Return the generator for the present batch. All ranks must call it for the first batch of a fit."""
        if self.seed is None:
            self.seed = int(trainer.strategy.broadcast(torch.initial_seed()))
        rank = trainer.global_rank if self._by_rank else 0
        place = (rank, trainer.current_epoch, max(trainer.fit_loop.batch_idx, 0))
        words = blake2b(repr((self.seed, self.name, *place)).encode(), digest_size=8).digest()
        return self._generator.manual_seed(int.from_bytes(words, "little"))

    def __getstate__(self) -> dict[str, object]:
        # A torch.Generator cannot be pickled before torch 2.9; its state is set again for each batch.
        return {key: value for key, value in vars(self).items() if key != "_generator"}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state, _generator=torch.Generator())
