"""Step 3: find a learning rate that makes the loss go down."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_trainingkit._lightning import L
from lightning_trainingkit.tuning.rate_search import RateSearch
from lightning_trainingkit.tuning.rate_verdict import LearningRate
from lightning_trainingkit.tuning.trial import Data, Trial

__all__ = ["find_learning_rate"]


def find_learning_rate(
    module: L.LightningModule,
    data: Data,
    *,
    candidates: Sequence[float] | None = None,
    trainer_options: Mapping[str, Any] | None = None,
) -> LearningRate:
    """Find a learning rate at which the loss drops within 100 iterations, and which is not near the cliff.

    A range test of 100 iterations narrows 1e-5 to 1 to five candidates. Each trains a copy of the module for 100
    iterations: from the same start, with the same batches, weight decay of at most 1e-4, and without schedules. A
    candidate that is far behind stops after 50. At most two further trials follow, so that the search takes at most
    800 iterations. The choice is the middle between the best rate and the smallest one that is about as good, and at
    most half of the largest stable rate.

    Module, data, optimizers and random states are left as they were. Parameter groups and optimizers keep their
    proportions. With several ranks, all take the same decision.

    Args:
        module: The module. In manual optimization, its ``training_step`` must return a loss.
        data: A DataModule or a train DataLoader, or None for the module's own ``train_dataloader``.
        candidates: One to five rates in growing order. They replace the candidates of the range test. With several
            parameter groups, a rate is the largest one of all groups.
        trainer_options: Arguments of Lightning's Trainer, such as ``accelerator``, ``precision`` or ``devices``.

    Returns:
        The rate, the rate of each group, the verdict and the trials.

    Raises:
        TypeError: If the module or the data cannot be copied, or if ``candidates`` are no numbers.
        ValueError: If ``candidates`` are empty, not growing or not positive, or if a training step returns no loss.

    Example:
        >>> import torch
        >>> from lightning_trainingkit import ImageClassifier
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> images = torch.randn(64, 1, 2, 2)
        >>> data = DataLoader(TensorDataset(images, (images[:, 0, 0, 0] > 0).long()), 16, shuffle=True)
        >>> module = ImageClassifier(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)), num_classes=2)
        >>> found = find_learning_rate(module, data, trainer_options={"accelerator": "cpu"})
        >>> found.verdict
        'pass'
    """
    return RateSearch(Trial(module, data, trainer_options), candidates).run()
