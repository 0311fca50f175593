"""A module that averages the outputs of another one, without a Trainer."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lightning_trainingkit.functional.views import View, make_views
from lightning_trainingkit.nn.averaging.average import Averaging
from lightning_trainingkit.nn.averaging.call_arguments import Arguments
from lightning_trainingkit.nn.averaging.members import Members
from lightning_trainingkit.nn.averaging.sources import Source
from lightning_trainingkit.nn.structure.modes import evaluating

__all__ = ["Averaged", "Views"]


class Views:
    """Views of the images, as a source of passes: flips, crops, shifts, scales, rotations.

    Args:
        views: A named set such as ``"ten_crop(224)"``, a list of them to be composed, a callable, or a list inside the
            list with single views; see ``functional.views.make_views``.

    Raises:
        ValueError: If a view is unknown or its arguments are wrong.

    Example:
        >>> Views(["scales(256, 480)", "flip"]).names[:2]
        ['scale(256)', 'scale(256)>hflip']
    """

    kind = "views"

    def __init__(self, views: Any) -> None:
        self.views: list[View] = make_views(views)
        self.names = [view.name for view in self.views]
        self.weights = [view.weight for view in self.views]


class Averaged(nn.Module):
    """Average a classifier over views of its images, members of an ensemble, random masks, or their product.

    ``y = E_z[f(x, z)]``. It is called as ``module`` is and returns one tensor of log-probabilities ``(N, C)``, so that
    softmax, argmax and cross-entropy of it are right. ``module`` must return logits or log-probabilities ``(N, C)``; it
    runs in eval mode and is not changed.

    Args:
        module: The classifier.
        sources: ``Views``, ``Members`` or ``RandomMasks``, or a list with at most one of each.
        average: ``"probabilities"``, ``"logits"`` (or ``"geometric"``, which is the same average once it is
            normalised) or ``"votes"``.
        early_exit: Leave out the passes of a sample that can't change its argmax any more; its log-probabilities are
            then those of the passes that were made. For ``"probabilities"`` and ``"votes"``, where it is exact.
        max_batch: Most samples in one call of ``module``: larger batches are cut, views of smaller ones put together.
            An argument is cut with the batch if its first dimension is the number of samples: weights of classes, say,
            where there happen to be as many.

    Raises:
        ValueError: If the arguments don't fit each other or ``module`` returns something else than logits.

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
        >>> Averaged(net, Views("flip"))(torch.rand(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        module: nn.Module,
        sources: Source | Sequence[Source],
        *,
        average: str = "probabilities",
        early_exit: bool = False,
        max_batch: int | None = None,
    ) -> None:
        super().__init__()
        self.module = module
        self.sources = list(sources) if isinstance(sources, Sequence) else [sources]
        self.average, self.early_exit, self.max_batch = average, early_exit, max_batch
        self._parts: list[nn.Module] = []  # of the module, in the last call
        self._averaging = Averaging(self.sources, average=average, early_exit=early_exit, max_batch=max_batch)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return log-probabilities ``(N, C)`` of the average."""
        with self._evaluating():
            return self._averaging(_plain, self.module, (args, kwargs))

    def each_pass(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the log-probabilities of all passes, ``(K, N, C)``, unweighted, in the order of ``names``."""
        with self._evaluating():
            return torch.stack(list(self._averaging.each_pass(_plain, self.module, (args, kwargs))))

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        with evaluating(self.module) as parts:
            if parts != self._parts:  # another layer may stand where members were to run
                for source in self.sources:
                    if isinstance(source, Members):
                        source.put_back()
                self._parts = parts
            yield

    @property
    def names(self) -> list[str]:
        """What each pass is."""
        return self._averaging.names

    @property
    def weights(self) -> list[float]:
        """Weight of each pass; their sum is 1."""
        return self._averaging.weights

    @property
    def passes_per_sample(self) -> float:
        """Passes that a sample was given on average, over all calls so far."""
        return self._averaging.passes_made / max(1, self._averaging.samples)


def _plain(module: nn.Module, arguments: Arguments) -> Any:
    return module(*arguments[0], **arguments[1])
