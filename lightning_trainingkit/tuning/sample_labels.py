"""Faults of labels that a few minibatches show: labels that change, and one image with two labels."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from lightning_trainingkit.nn.diagnostics.finding import Finding
from lightning_trainingkit.nn.diagnostics.untrained import listed
from lightning_trainingkit.tuning.reason import reason
from lightning_trainingkit.tuning.sample import Sample
from lightning_trainingkit.tuning.sample_look import Look

__all__ = ["changing_labels", "two_labels"]

_SAME = 1e-3  # change of the outputs, relative to the largest


def changing_labels(look: Look) -> tuple[list[Finding], bool]:
    """Compare the targets of the same examples in two steps, and in two readings of the data set.

    Args:
        look: The look at the sample.

    Returns:
        Findings of the kinds ``labels_change`` and ``labels_change_with_input``, and whether the step draws random
        numbers, so that the same batch gives other outputs.
    """
    if len(look.targets) < len(look.batches) or len(look.targets) < 2:
        return [], False
    share, same = _compare(look, 0, 1)
    draws = not same
    if share and same:
        collated = _differ(look.batches[0], look.batches[1])
        where = "`collate_fn`" if collated else "`training_step`"
        return [_changing(share, f"{where} runs again on the same examples", where)], False
    if len(look.targets) > 2 and look.sample.random_transforms and not share:
        share, same = _compare(look, 0, 2)
        where = "the data set"
        if share and same:
            return [_changing(share, f"{where} gives the same examples again", where)], draws
        if share and not look.targets[0].is_floating_point() and look.targets[0].dim() == 1:
            found = reason(
                "labels_change_with_input",
                where,
                share,
                f"{share:.0%} of the labels are other ones when an example is read again, and so are the inputs.",
                "This suits labels that tell the transform, such as a rotation. For classes, look at how "
                "`__getitem__` pairs inputs and labels.",
            )
            return [found], draws
    return [], draws


def _changing(share: float, when: str, where: str) -> Finding:
    return reason(
        "labels_change",
        where.strip("`"),
        share,
        f"{share:.0%} of the labels are other ones when {when}, and the inputs are the same: nothing can be learnt.",
        f"Look at how {where} pairs inputs and labels: shuffle both by the same indices, or neither.",
    )


def _compare(look: Look, one: int, other: int) -> tuple[float, bool]:
    """Share of examples with another target, and whether the outputs are the same."""
    targets, scores = (look.targets[one], look.targets[other]), (look.scores[one], look.scores[other])
    if targets[0].shape != targets[1].shape or scores[0].shape != scores[1].shape or not targets[0].dim():
        return 0.0, False
    changed = (targets[0] != targets[1]).flatten(1 if targets[0].dim() > 1 else 0)
    share = float((changed.any(1) if changed.dim() > 1 else changed).float().mean())
    size = float(scores[0].abs().max()) or 1.0
    return share, float((scores[0] - scores[1]).abs().max()) <= _SAME * size


def _differ(one: Any, other: Any) -> bool:
    pairs = zip(tree_leaves(one), tree_leaves(other), strict=False)
    return any(isinstance(a, Tensor) and (a.shape != b.shape or not torch.equal(a, b)) for a, b in pairs)


def two_labels(look: Look, sample: Sample) -> Finding | None:
    """Find examples with the same input and different class indices.

    Args:
        look: The look at the sample, which shows where in a batch the target is.
        sample: The sample.
    """
    target = look.targets[0] if look.targets else None
    if target is None or target.dim() != 1 or target.is_floating_point():
        return None
    try:
        leaves = [each for each in tree_leaves(sample.all_at_once()) if isinstance(each, Tensor)]
    except Exception:
        return None  # examples that do not fit into one batch
    first = [each for each in tree_leaves(look.batches[0]) if isinstance(each, Tensor)]
    places = [i for i, each in enumerate(first) if each.shape == target.shape and torch.equal(each.cpu(), target)]
    if not places or len(leaves) != len(first) or any(len(each) != sample.size for each in leaves):
        return None
    labels = leaves[places[0]].tolist()
    inputs = [each for i, each in enumerate(leaves) if i not in places and each.dim() > 1]
    if not inputs:
        return None
    known: dict[bytes, int] = {}
    pairs = []
    for number in range(sample.size):
        key = b"".join(each[number].contiguous().cpu().view(torch.uint8).numpy().tobytes() for each in inputs)
        before = known.setdefault(key, number)
        if labels[before] != labels[number]:
            pairs.append((before, number))
    if not pairs:
        return None
    shown = [f"{sample.indices[a]} and {sample.indices[b]} (labels {labels[a]} and {labels[b]})" for a, b in pairs]
    return reason(
        "two_labels",
        "the training set",
        float(len(pairs)),
        f"The same input stands in the training set with two labels: examples {listed(shown)}. At most "
        f"{1 - len(pairs) / sample.size:.1%} of the {sample.size} examples can be right.",
        f"Look at `train_set[{sample.indices[pairs[0][0]]}]` and `train_set[{sample.indices[pairs[0][1]]}]`, and drop "
        "or correct one of each pair.",
    )
