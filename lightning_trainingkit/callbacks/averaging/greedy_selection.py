"""Record the outputs of each ensemble member on the validation data, to choose the members' weights."""

from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from lightning_trainingkit._lightning import L
from lightning_trainingkit.functional.ensemble_selection import greedy_weights
from lightning_trainingkit.nn.averaging.average import Averaging
from lightning_trainingkit.nn.averaging.call_arguments import Arguments
from lightning_trainingkit.nn.averaging.members import Members
from lightning_trainingkit.nn.averaging.sources import Call

__all__ = ["Selection"]


class Selection:
    """A source of passes that runs all members with equal weights and records their outputs."""

    early_exit = False  # the selection needs each member's output on each sample

    def __init__(self, members: Members, average: str, max_batch: int | None) -> None:
        self.members, self.average, self.max_batch = members, average, max_batch
        self.kind, self.names, self.weights = members.kind, members.names, members.weights
        self._of_batch: list[list[Tensor]] = [[] for _ in self.names]
        self._recorded: list[tuple[Tensor, Tensor]] = []

    def around(self, index: int, call: Call) -> Call:
        """Return a call of one member that records the member's log-probabilities."""
        inner = self.members.around(index, call)

        def recorded(module: nn.Module, arguments: Arguments) -> Any:
            out = inner(module, arguments)
            if isinstance(out, Tensor) and out.ndim == 2:  # the average refuses other outputs
                self._of_batch[index].append(out.detach().float().log_softmax(dim=1))
            return out

        return recorded

    def look_at_first(self, call: Call, module: nn.Module, arguments: Arguments) -> None:
        """Require the tested module's number of classes of every member."""
        self.members.expect_outputs(call, module, arguments)

    def observe(self, result: Tensor, averaging: Averaging) -> None:
        """Refuse passes of other sources."""
        others = [source.kind for source in averaging.sources if source.kind != "members"]
        if others:
            raise ValueError(
                f"`weights='greedy'` must be chosen without other passes, got {', '.join(others)} on the same target. "
                "Leave 'validate' out of their stages."
            )

    def end_batch(self, batch: Any) -> None:
        """Keep a batch's log-probabilities and targets."""
        rows = torch.stack([torch.cat(each) for each in self._of_batch])
        self._of_batch = [[] for _ in self.names]
        # To the CPU, at the price of one synchronisation a batch: all outputs would fill the device's memory.
        self._recorded.append((rows.cpu(), _targets(batch, rows.shape[1]).cpu()))

    def choose(self, trainer: L.Trainer) -> list[float]:
        """Choose the weights from the records of all ranks. All ranks get equal weights."""
        recorded = self._recorded
        if trainer.world_size > 1:
            gathered: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(gathered, recorded)  # ranks may have different numbers of samples
            recorded = [each for of_rank in gathered for each in of_rank]
        if not sum(len(target) for _, target in recorded):
            raise ValueError("`weights='greedy'` must be chosen on validation data, got none. Is the loader empty?")
        rows, targets = zip(*recorded, strict=True)
        weights: list[float] = greedy_weights(torch.cat(rows, dim=1), torch.cat(targets)).tolist()
        return weights


def _targets(batch: Any, size: int) -> Tensor:
    found: list[Tensor] = []
    apply_to_collection(batch, Tensor, found.append)
    whole = [each for each in found if not (each.is_floating_point() or each.is_complex() or each.dtype == torch.bool)]
    candidates = [each for each in whole if tuple(each.shape) == (size,)]
    if len(candidates) != 1:
        shapes = ", ".join(f"{tuple(each.shape)} of {each.dtype}" for each in found) or "no tensor"
        raise ValueError(
            f"`weights='greedy'` must find the targets as the batch's only tensor of {size} integers, one for each "
            f"sample that the target was called with, got {len(candidates)} in: {shapes}. Validate on batches without "
            "others, or give the weights as numbers."
        )
    return candidates[0].long()
