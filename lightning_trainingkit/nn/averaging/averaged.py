"""A module that averages the outputs of another module, without a Trainer."""

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
        views: A set by name such as ``"ten_crop(224)"``, a function, or a list of these to compose. A list inside the
            list holds single views. See ``functional.views.make_views``.

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

    ``y = E_z[f(x, z)]``. It takes the arguments of ``module`` and returns log-probabilities ``(N, C)`` as one tensor,
    whose softmax, argmax and cross-entropy are right. ``module`` must return logits or log-probabilities ``(N, C)``. It
    runs in eval mode and does not change.

    Args:
        module: The classifier.
        sources: ``Views``, ``Members`` or ``RandomMasks``, or a list with at most one of each.
        average: ``"probabilities"``, ``"logits"`` (``"geometric"`` is the same average, normalised) or ``"votes"``.
        early_exit: Skip a sample's remaining passes once they cannot change its argmax. Its log-probabilities then
            average the passes made. Only for ``"probabilities"`` and ``"votes"``, where it is exact.
        max_batch: Most samples in one call of ``module``. Larger batches are cut, with every argument whose first
            dimension is the number of samples (even weights of classes, if there are as many). Views of smaller
            batches share a call.

    Raises:
        ValueError: If the arguments do not fit each other, or ``module`` does not return logits ``(N, C)``.

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
        self._parts: list[nn.Module] = []  # the module's submodules in the last call
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
            if parts != self._parts:  # a layer was replaced since: members are prepared for the old one
                for source in self.sources:
                    if isinstance(source, Members):
                        source.put_back()
                self._parts = parts
            yield

    @property
    def names(self) -> list[str]:
        """Name of each pass."""
        return self._averaging.names

    @property
    def weights(self) -> list[float]:
        """Weight of each pass; their sum is 1."""
        return self._averaging.weights

    @property
    def passes_per_sample(self) -> float:
        """Mean number of passes a sample, over all calls so far."""
        return self._averaging.passes_made / max(1, self._averaging.samples)


def _plain(module: nn.Module, arguments: Arguments) -> Any:
    return module(*arguments[0], **arguments[1])
