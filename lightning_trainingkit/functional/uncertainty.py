"""The uncertainty of a classifier about a sample, and the part of it that its passes disagree on."""

import torch
from torch import Tensor

from lightning_trainingkit.functional.averaging import check_weights

__all__ = ["mutual_information", "predictive_entropy"]


def predictive_entropy(log_probabilities: Tensor) -> Tensor:
    r"""Entropy of class probabilities, in nats.

    :math:`H(p) = -\sum_c p_c \log p_c`, with :math:`0 \log 0 = 0`: 0 for a certain class, :math:`\log C` for
    equal classes.

    Args:
        log_probabilities: Log-probabilities, or logits, shape ``(N, C)`` (or ``(..., C)``). A class may have -inf.

    Returns:
        Shape ``(N,)``, between 0 and ``log(C)``.

    Example:
        >>> import torch
        >>> predictive_entropy(torch.tensor([[0.5, 0.5], [1.0, 0.0]]).log())
        tensor([0.6931, 0.0000])
    """
    return _entropy(_probabilities(log_probabilities))


def mutual_information(log_probabilities: Tensor, weights: Tensor | None = None) -> Tensor:
    r"""Mutual information, in nats, between the class of a sample and the pass that predicts it (BALD).

    :math:`I = H(\sum_k w_k p_k) - \sum_k w_k H(p_k)`: the part of the entropy that comes from the disagreement of the
    passes (members, masks). It is 0 if all passes are equal, even if they are unsure, and at most :math:`\log K`.

    Args:
        log_probabilities: Log-probabilities, or logits, of each pass, shape ``(K, N, C)``. A class may have -inf.
        weights: Weights :math:`w` of the passes, shape ``(K,)``, sum 1. Equal weights by default.

    Returns:
        Shape ``(N,)``, never negative.

    Raises:
        ValueError: If the shape is wrong or the weights don't fit.

    Example:
        >>> import torch
        >>> agree, differ = [[0.5, 0.5], [0.5, 0.5]], [[1.0, 0.0], [0.0, 1.0]]
        >>> mutual_information(torch.tensor([agree, differ]).transpose(0, 1).log())
        tensor([0.0000, 0.6931])

    References:
        Houlsby et al., "Bayesian Active Learning for Classification and Preference Learning", 2011, arXiv:1112.5745.
        Gal, "Uncertainty in Deep Learning", PhD thesis, University of Cambridge, 2016.
    """
    if log_probabilities.ndim != 3:
        shape = tuple(log_probabilities.shape)
        raise ValueError(f"`log_probabilities` must have shape (K, N, C), got {shape}. Stack the passes.")
    each = _probabilities(log_probabilities)
    if weights is None:
        weights = each.new_full((len(each),), 1 / len(each))
    else:
        check_weights("weights", weights.tolist(), len(each))
        weights = weights.to(each)
    of_mean = _entropy(torch.tensordot(weights, each, dims=1))
    return (of_mean - weights @ _entropy(each)).clamp(min=0)  # below 0 by rounding alone


def _probabilities(log_probabilities: Tensor) -> Tensor:
    dtype = torch.promote_types(log_probabilities.dtype, torch.float32)
    return log_probabilities.softmax(dim=-1, dtype=dtype)


def _entropy(probabilities: Tensor) -> Tensor:
    terms: Tensor = torch.special.entr(probabilities)
    return terms.sum(dim=-1)
