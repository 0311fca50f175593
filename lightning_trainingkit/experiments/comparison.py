"""Compare the predictions of classifiers on the same images: scores, and paired gains with intervals."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from lightning_trainingkit._lightning import L

__all__ = ["correct", "gain", "interval", "losses", "predictions", "scores", "shown", "verdict"]


def predictions(trainer: L.Trainer, module: L.LightningModule, data: L.LightningDataModule) -> tuple[Tensor, Tensor]:
    """Predict on all ranks. Every rank gets all predictions, on the CPU.

    Args:
        trainer: The Trainer. Its callbacks take part.
        module: The module, whose ``predict_step`` returns class probabilities, a row for each image.
        data: The data, whose ``predict_dataloader`` yields images and targets in a fixed order.

    Returns:
        Log-probabilities ``(N, C)`` in float32 and the targets ``(N,)``.
    """
    batches = trainer.predict(module, data)
    targets = torch.cat([target for _, target in cast(Any, trainer.predict_dataloaders)])
    found = torch.cat(cast(list[Tensor], batches)).float().cpu().log(), targets
    if trainer.world_size == 1:
        return found
    ranks: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(ranks, found)
    rows, labels = zip(*ranks, strict=True)
    return torch.cat(rows), torch.cat(labels)


def correct(log_probabilities: Tensor, targets: Tensor) -> Tensor:
    """Score each image 1 if its argmax is right and 0 if not: ``(..., N, C)`` and ``(N,)`` to ``(..., N)``, float64."""
    return (log_probabilities.argmax(dim=-1) == targets).double()


def losses(log_probabilities: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood of each image in nats: ``(..., N, C)`` and ``(N,)`` to ``(..., N)``, float64.

    A probability that was rounded to 0 counts as the smallest normal one of float32, 1e-38.
    """
    smallest = math.log(torch.finfo(torch.float32).tiny)
    chosen = targets.expand(log_probabilities.shape[:-1]).unsqueeze(-1)
    return -log_probabilities.double().clamp(min=smallest).gather(-1, chosen).squeeze(-1)


def scores(log_probabilities: Tensor, targets: Tensor) -> dict[str, float]:
    """Accuracy, loss (negative log-likelihood in nats) and calibration error (15 bins, of the largest probability).

    Args:
        log_probabilities: Log-probabilities of one classifier ``(N, C)``, or of several ``(S, N, C)``, whose scores are
            averaged.
        targets: Class indices, shape ``(N,)``.

    Returns:
        ``test/acc``, ``test/loss`` and ``test/ece``.
    """
    each = log_probabilities.reshape(-1, *log_probabilities.shape[-2:])
    errors = [multiclass_calibration_error(one.exp(), targets, one.shape[1], n_bins=15) for one in each]
    return {
        "test/acc": correct(log_probabilities, targets).mean().item(),
        "test/loss": losses(log_probabilities, targets).mean().item(),
        "test/ece": torch.stack(errors).mean().item(),
    }


def gain(log_probabilities: Tensor, references: Tensor, targets: Tensor) -> dict[str, float]:
    """Compute the gain over references, with the half width of its 95 % interval over paired images.

    Args:
        log_probabilities: Log-probabilities of one classifier ``(N, C)``, or of several ``(S, N, C)``, which are
            averaged over.
        references: Log-probabilities of the references, in the same shapes.
        targets: Class indices, shape ``(N,)``.

    Returns:
        ``acc gain`` and ``loss gain`` (negative: better), each with its ``+-``.
    """

    def difference(measure: Callable[[Tensor, Tensor], Tensor]) -> tuple[float, float]:
        ours, theirs = (measure(each, targets).reshape(-1, len(targets)) for each in (log_probabilities, references))
        return interval(ours.mean(dim=0) - theirs.mean(dim=0))

    found = (*difference(correct), *difference(losses))
    return dict(zip(("acc gain", "acc +-", "loss gain", "loss +-"), found, strict=True))


def shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """Join a gain and its interval in one cell, for a table.

    Example:
        >>> shown({"views": "flip", "test/acc": 0.9, "acc gain": 0.012, "acc +-": 0.005})
        {'views': 'flip', 'test/acc': 0.9, 'acc gain': '+0.0120 +- 0.0050'}
    """
    cells = {key: value for key, value in row.items() if not key.endswith("+-")}
    joined = {
        f"{name} gain": f"{row[f'{name} gain']:+.4f} +- {row[f'{name} +-']:.4f}"
        for name in ("acc", "loss")
        if f"{name} gain" in row
    }
    return cells | joined


def verdict(gains: Mapping[str, Any]) -> str:
    """Describe the result of ``gain`` in words.

    Example:
        >>> verdict({"acc gain": 0.012, "acc +-": 0.005, "loss gain": -0.01, "loss +-": 0.02})
        'accuracy better, loss not to be told from equal'
    """

    def word(name: str, up: int) -> str:
        middle, half = gains[f"{name} gain"] * up, gains[f"{name} +-"]
        return "not to be told from equal" if abs(middle) <= half else "better" if middle > 0 else "worse"

    return f"accuracy {word('acc', 1)}, loss {word('loss', -1)}"


def interval(values: Sequence[float] | Tensor) -> tuple[float, float]:
    """Mean and half width of its 95 % interval by Student's t, for independent values.

    Raises:
        ImportError: If scipy, which comes with scikit-learn, is not installed.
        ValueError: If there are fewer than two values.

    Example:
        >>> mean, half = interval([1.0, 2.0, 3.0])
        >>> print(f"{mean:.2f} +- {half:.2f}")
        2.00 +- 2.48
    """
    try:
        from scipy.stats import t
    except ImportError as error:
        raise ImportError(f"{error}. Run: pip install 'lightning-trainingkit[recipes]'.") from error
    given = torch.as_tensor(values, dtype=torch.float64)
    if len(given) < 2:
        raise ValueError(f"`values` must be at least two, got {len(given)}. One value has no interval.")
    half = t.ppf(0.975, len(given) - 1) * given.std().item() / math.sqrt(len(given))
    return given.mean().item(), float(half)
