"""Labels and outputs that do not belong together."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.special import entr

from lightning_trainingkit.nn.diagnostics.finding import Finding
from lightning_trainingkit.tuning.reason import reason
from lightning_trainingkit.tuning.spied_step import LabelsOutOfRangeError

__all__ = ["label_findings", "least_loss", "out_of_range", "pairs_examples"]

_CERTAIN = 20  # examples for each class, after which a missing half of the classes is no chance


def out_of_range(error: LabelsOutOfRangeError) -> Finding:
    """Say what is wrong with labels that are no class indices."""
    least, most, classes = error.least, error.most, error.classes
    message = f"`{error.loss}` of {classes} classes takes labels from 0 to {classes - 1}, and got {least} to {most}."
    if least == 1 and most == classes:
        advice = "The labels begin at 1: subtract 1, as in `y - 1`."
    elif least < 0:
        advice = f"Leave out the examples without a label, or name their value: `ignore_index={least}`."
    else:
        advice = f"Give the last layer {most + 1} outputs: `nn.Linear(..., {most + 1})`, or map the labels."
    return reason("wrong_number_of_classes", error.loss, float(classes), message, advice)


def label_findings(labels: list[Tensor], outputs: int | None) -> list[Finding]:
    """Compare class indices with the number of outputs.

    Args:
        labels: Class indices of each batch.
        outputs: Number of outputs, None where it is unknown.
    """
    if outputs is None or not labels or labels[0].is_floating_point():
        return []
    if outputs == 1:
        return [
            reason(
                "wrong_number_of_classes",
                "the outputs",
                1.0,
                "The softmax of one output is always 1, so that the loss is always 0.",
                "Give the last layer an output for each class, or use `F.binary_cross_entropy_with_logits`.",
            )
        ]
    if any(bool((each == each.flatten()[0]).all()) for each in labels if each.numel()):
        return []  # batches sorted by class say nothing about the other classes
    images = sum(len(each) for each in labels)
    seen = np.unique(torch.cat([each.flatten() for each in labels]))
    expected = outputs * (1 - (1 - 1 / outputs) ** images)
    few = len(seen) < expected / 4 or images >= _CERTAIN * outputs
    if int(seen.max()) + 1 > outputs / 2 or not few:
        return []
    return [
        reason(
            "many_unused_classes",
            "the outputs",
            float(outputs),
            f"The last layer has {outputs} outputs, and {images} examples have only the labels {int(seen.min())} to "
            f"{int(seen.max())}.",
            f"Give the last layer an output for each class: {int(seen.max()) + 1}, if these are all classes.",
        )
    ]


def pairs_examples(labels: list[Tensor], outputs: int | None) -> bool:
    """Whether labels are the numbers 0, 1, 2, ... of a batch's examples, as in a contrastive loss.

    The inputs then show which examples belong together, so that a network without training is better than chance.

    Args:
        labels: Class indices of each batch.
        outputs: Number of outputs in the last batch.
    """
    counted = bool(labels) and all(torch.equal(each, torch.arange(len(each), dtype=each.dtype)) for each in labels)
    return counted and outputs == len(labels[-1])


def least_loss(labels: list[Tensor], chance: float) -> float:
    """The loss of outputs that know how frequent each class is, and nothing about the input.

    Args:
        labels: Class indices or, for several labels at once, zeros and ones, of each batch.
        chance: What to return without labels.
    """
    if not labels:
        return chance
    if labels[0].is_floating_point():
        rates = torch.cat(labels).float().mean(0)
        return float((entr(rates) + entr(1 - rates)).mean())
    counts = np.unique(torch.cat([each.flatten() for each in labels]), return_counts=True)[1]
    found = float(entr(torch.from_numpy(counts / counts.sum())).sum())
    return min(found, chance) if math.isfinite(found) else chance
