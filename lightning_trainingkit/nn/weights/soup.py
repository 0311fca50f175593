"""Average the weights of several trainings into one model."""

import copy
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_trainingkit.functional.averaging import check_weights
from lightning_trainingkit.nn.structure.names import plain_names
from lightning_trainingkit.nn.weights.checkpoint import load_weights
from lightning_trainingkit.nn.weights.find_files import find_files

__all__ = ["GreedySoup", "average_weights", "greedy_soup"]


def average_weights(
    paths: str | Path | Sequence[str | Path], *, weights: Sequence[float] | None = None
) -> dict[str, Tensor]:
    """Average the weights of checkpoints into one model, a soup. At test time it costs as much as one member.

    ``theta = sum_k w_k theta_k``, by default with ``w_k = 1 / K``.

    - **Members** must have started from the same pretrained weights, or be points of one training. Average the
      predictions of other members (``EnsembleAverage``).
    - **Files** are read one after the other onto the CPU, without running code, and summed in double precision.
    - **BatchNorm**: averaged statistics are not the statistics of the averaged model. Call ``reestimate_batch_norm``
      after loading.

    Args:
        paths: A checkpoint (of Lightning, or a saved ``state_dict``), a pattern such as ``"runs/*/best.ckpt"``, a
            folder of ``BestCheckpoint`` (all its ``top_k``), or a list of these.
        weights: Weight of each file in the order of ``paths``, none negative, with sum 1; equal by default. A pattern's
            files are in the order of their names, numbers by size; a folder's files from the best on.

    Returns:
        The weights for ``module.load_state_dict``, with the names and dtypes of the first file. Integers, such as
        BatchNorm's count of batches, are the largest value. Other entries that are no tensors come from the first file.

    Raises:
        FileNotFoundError: If no file is found.
        ValueError: If the files differ in architecture, a file is truncated or would run code, or ``weights`` do not
            fit.

    Example:
        >>> import pathlib, tempfile, torch
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> for k in (1, 2, 6):
        ...     torch.save({"state_dict": {"weight": torch.tensor([float(k)])}}, folder / f"{k}.ckpt")
        >>> average_weights(f"{folder}/*.ckpt")
        {'weight': tensor([3.])}
        >>> average_weights(f"{folder}/*.ckpt", weights=[0.5, 0.5, 0.0])
        {'weight': tensor([1.5000])}

    References:
        Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without
        increasing inference time", ICML 2022, arXiv:2203.05482; Izmailov et al., "Averaging Weights Leads to Wider
        Optima and Better Generalization", UAI 2018, arXiv:1803.05407.
    """
    files = _find(paths)
    soup = _Soup()
    given = [1.0] * len(files) if weights is None else check_weights("weights", weights, len(files), "file")
    for file, weight in zip(files, given, strict=True):
        if weight:
            soup.add(load_weights(file), file, weight)
        else:
            soup.check(load_weights(file), file)
    return soup.average()


class GreedySoup(NamedTuple):
    """The result of ``greedy_soup``.

    Args:
        weights: The averaged weights, for ``module.load_state_dict``.
        paths: The averaged files, from the best on.
        score: Score of the averaged weights.
    """

    weights: dict[str, Tensor]
    paths: list[Path]
    score: float


def greedy_soup(paths: str | Path | Sequence[str | Path], score: Callable[[dict[str, Tensor]], float]) -> GreedySoup:
    """Average the weights of checkpoints that a greedy choice selects. The soup scores at least as well as the best.

    Members are tried from the best to the worst by their own score. A member stays in the soup if the soup's score does
    not fall. Score on validation data, since the choice is fitted to the data. For ``K`` files ``score`` is called
    ``2 K - 1`` times. Two files are in memory beside the running sum.

    Args:
        paths: The checkpoints, as in ``average_weights``.
        score: Function of weights, larger is better. It loads them into a module, re-estimates BatchNorm statistics if
            there are any (``reestimate_batch_norm``), and returns the validation accuracy or similar. It must keep no
            reference to the weights.

    Returns:
        The averaged weights for ``module.load_state_dict``, the averaged files from the best on, and the soup's score.

    Raises:
        FileNotFoundError: If no file is found.
        ValueError: If the files differ in architecture, a file is truncated or would run code, or a score is NaN.

    Example:
        >>> import pathlib, tempfile, torch
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> for k in (1, 3, 9):
        ...     torch.save({"weight": torch.tensor(float(k))}, folder / f"{k}.ckpt")
        >>> soup = greedy_soup(f"{folder}/*.ckpt", lambda weights: -abs(weights["weight"].item() - 2.1))
        >>> soup.weights, [path.name for path in soup.paths]
        ({'weight': tensor(2.)}, ['3.ckpt', '1.ckpt'])

    References:
        Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without
        increasing inference time", ICML 2022, arXiv:2203.05482, recipe 1.
    """
    files = _find(paths)
    soup, scores = _Soup(), []
    for file in files:
        scores.append(_judge(score, soup.check(load_weights(file), file), file))
    best, *others = sorted(range(len(files)), key=lambda k: -scores[k])
    soup.add(load_weights(files[best]), files[best])
    chosen, reached = [files[best]], scores[best]
    for k in others:
        larger = copy.deepcopy(soup)
        larger.add(load_weights(files[k]), files[k])
        found = _judge(score, larger.average(), files[k])
        if found >= reached:
            soup, reached = larger, found
            chosen.append(files[k])
    return GreedySoup(soup.average(), chosen, reached)


class _Soup:
    """A running sum of weights."""

    def __init__(self) -> None:
        self._layout: dict[str, Any] = {}  # names, shapes and dtypes, as tensors without storage
        self._first = Path()
        self._sums: dict[str, Any] = {}
        self._weight = 0.0

    def check(self, member: dict[str, Any], file: Path) -> dict[str, Any]:
        """Return ``member`` with the names of the first checked member, since files may come from compiled modules.

        Raises:
            ValueError: If ``member`` has another architecture.
        """
        if not self._layout:
            self._first = file
            self._layout = {name: v.to("meta") if isinstance(v, Tensor) else v for name, v in member.items()}
        firsts = plain_names({name: name for name in self._layout})
        member = {firsts.get(name, name): value for name, value in plain_names(member).items()}
        names = [name for name in {**self._layout, **member} if (name in self._layout) != (name in member)]
        if names:
            where = f"{names[0]} is in {self._first if names[0] in self._layout else file} alone"
            raise ValueError(_other_architecture(self._first, file, where, len(names)))
        differ = [name for name, value in self._layout.items() if _kind(value) != _kind(member[name])]
        if differ:
            one, other = (_kind(weights[differ[0]]) for weights in (self._layout, member))
            where = f"{differ[0]} is {one} there and {other} here"
            raise ValueError(_other_architecture(self._first, file, where, len(differ)))
        return member

    def add(self, member: dict[str, Any], file: Path, weight: float = 1.0) -> None:
        """Add ``weight`` times the weights of ``member``."""
        self._weight += weight
        for name, value in self.check(member, file).items():
            held = self._sums.get(name)
            if not isinstance(value, Tensor):
                self._sums.setdefault(name, value)
            elif value.is_floating_point() or value.is_complex():
                double = value.to(torch.complex128 if value.is_complex() else torch.float64)
                self._sums[name] = double * weight if held is None else held.add_(double, alpha=weight)
            else:
                self._sums[name] = value if held is None else torch.maximum(held, value.to(held.dtype))

    def average(self) -> dict[str, Tensor]:
        """Return the sums divided by the sum of the weights, in the dtypes of the first member."""
        result = {}
        for name, value in self._sums.items():
            if isinstance(value, Tensor):
                averaged = value / self._weight if value.is_floating_point() or value.is_complex() else value.clone()
                value = averaged.to(self._layout[name].dtype)
            result[name] = value
        return result


def _kind(value: Any) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    kind = "complex" if value.is_complex() else "floats" if value.is_floating_point() else "integers"
    return f"{kind} of shape {tuple(value.shape)}"


def _other_architecture(first: Path, file: Path, where: str, number: int) -> str:
    more = f", and {number - 1} more differ" if number > 1 else ""
    return (
        f"`paths` must be of one architecture, got {file} beside {first}: {where}{more}. "
        "Leave it out, or average the predictions instead (`EnsembleAverage`)."
    )


def _judge(score: Callable[[dict[str, Tensor]], float], weights: dict[str, Tensor], file: Path) -> float:
    found = float(score(weights))
    if math.isnan(found):
        raise ValueError(f"`score` must return a number, got NaN on trying {file}. Return -inf for useless weights.")
    return found


def _find(paths: str | Path | Sequence[str | Path]) -> list[Path]:
    files = find_files("paths", paths)
    if not files:
        raise ValueError("`paths` must name at least one file, got none. Give a file, a folder or a pattern.")
    return files
