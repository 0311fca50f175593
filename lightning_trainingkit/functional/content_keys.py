"""Keys by content: equal images have equal keys, different images have different keys."""

from functools import lru_cache

import torch
from torch import Tensor

__all__ = ["content_keys"]

_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int32}


def content_keys(x: Tensor) -> Tensor:
    """Hash each entry of a batch, on its device: two sums of its 32-bit words, each times a fixed random number.

    ``k_j = sum_i w_i m_ij mod 2^64``, int64, shape ``(N, 2)``. Two different entries of one shape and dtype have equal
    keys with probability at most ``2^-64`` over the random numbers, whose seed is fixed.

    Args:
        x: Any dtype, shape ``(N, ...)``. Its memory format does not matter.

    References:
        Lemire and Kaser, "Strongly universal string hashing is fast", The Computer Journal 2014, arXiv:1202.4961.
    """
    flat = x.detach().reshape(len(x), -1).contiguous()
    if flat.dtype is torch.bool:
        flat = flat.to(torch.uint8)
    words = flat.view(_WORDS[flat.element_size()] if not flat.is_complex() else torch.int32).to(torch.int64)
    return torch.stack([(words * numbers).sum(dim=1) for numbers in _numbers(words.shape[1], x.device)], dim=1)


@lru_cache(maxsize=8)
def _numbers(count: int, device: torch.device) -> Tensor:
    """Random numbers ``(2, count)``."""
    drawn = torch.randint(-(2**63), 2**63 - 1, (2, count), generator=torch.Generator().manual_seed(20061))
    return drawn.to(device)
