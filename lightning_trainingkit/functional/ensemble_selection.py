"""Weights of an ensemble's members, chosen on held-out data."""

import math

import torch
from torch import Tensor

from lightning_trainingkit.functional import _check

__all__ = ["greedy_weights"]


def greedy_weights(log_probabilities: Tensor, target: Tensor, rounds: int = 50) -> Tensor:
    r"""Choose members one by one, with replacement: always the one that lowers the loss of the average most.

    Round :math:`t` adds the member :math:`k` for which the new average has the smallest negative log-likelihood,
    :math:`-\frac 1 N \sum_i \log \frac 1 t (S_i + p_k(y_i))`. Here :math:`S_i` sums the probabilities
    :math:`p(y_i)` of the true class over the members chosen before. So the first round chooses the best single member.

    The weight of a member is its share of the choices, up to the round with the smallest loss. On the given data the
    average is never worse than the best member. Other data keep a part of this gain that depends on ``N``: give it
    validation data.

    Args:
        log_probabilities: Log-probabilities of each member, shape ``(K, N, C)``, normalised. Values below -87 count as
            -87 (1e-38, as in ``averaging.finish``), so that one sample does not exclude a member.
        target: True classes in ``0 .. C - 1``, shape ``(N,)``.
        rounds: Largest number of choices. A member may be chosen several times. More rounds make finer weights.

    Returns:
        Weights of the members, shape ``(K,)``, multiples of ``1 / t`` with sum 1. Many may be 0. The first of equally
        good members is chosen, and the earliest of equally good rounds.

    Raises:
        ValueError: If the shapes don't fit, there is no sample, a member gives NaN, or ``rounds`` is not positive.

    Example:
        >>> import torch
        >>> right_on_first, right_on_second, bad = [[0.9, 0.1], [0.7, 0.3]], [[0.3, 0.7], [0.1, 0.9]], [[0.2, 0.8]] * 2
        >>> members = torch.tensor([right_on_first, bad, right_on_second]).log()
        >>> greedy_weights(members, target=torch.tensor([0, 1]))
        tensor([0.5000, 0.0000, 0.5000])

    References:
        Caruana et al., "Ensemble Selection from Libraries of Models", ICML 2004.
    """
    shape = tuple(log_probabilities.shape)
    if log_probabilities.ndim != 3 or 0 in shape:
        raise ValueError(f"`log_probabilities` must have shape (K, N, C), none of them 0, got {shape}. Stack members.")
    if tuple(target.shape) != shape[1:2]:
        raise ValueError(f"`target` must be {shape[1]} class indices, got shape {tuple(target.shape)}. One per sample.")
    _check.integer("rounds", rounds, "50 is usual.", least=1)
    floor = math.log(torch.finfo(torch.float32).tiny)
    at_target = log_probabilities.gather(2, target.long().expand(shape[0], -1)[:, :, None])[:, :, 0]
    # On the CPU, where float64 always exists, the choice does not depend on the device.
    p = at_target.detach().cpu().double().clamp(min=floor).exp()
    if p.isnan().any():
        members = p.isnan().any(dim=1).nonzero().flatten().tolist()
        raise ValueError(f"`log_probabilities` must be numbers, got NaN from the members {members}. Leave them out.")
    total = torch.zeros_like(p[0])
    counts = torch.zeros(len(p), dtype=torch.float64)
    best, weights = math.inf, counts
    for t in range(1, rounds + 1):
        losses = math.log(t) - (total + p).log_().mean(dim=1)
        chosen = int(losses.argmin())
        total += p[chosen]
        counts[chosen] += 1
        if float(losses[chosen]) < best:
            best, weights = float(losses[chosen]), counts / t
    return weights.to(log_probabilities.device, torch.float32)
