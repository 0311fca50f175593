"""Keys by content: equal images have equal keys, others have others."""

from collections.abc import Iterable

import torch
from torch import Tensor

__all__ = ["content_keys", "fingerprint"]

_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int32}
_SEED = 20061


def content_keys(x: Tensor) -> Tensor:
    """Hash each entry of a batch, on its device: two sums of its 32-bit words, each times a fixed random number.

    ``k_j = sum_i w_i m_ij mod 2^64``: two entries of one shape and dtype that differ have the same pair with
    probability at most ``2^-64`` over the random numbers, which are those of a fixed seed. Shape and dtype are not in
    the key.

    Args:
        x: Any dtype, shape ``(N, ...)``. Its memory format does not matter.

    Returns:
        Shape ``(N, 2)``, int64.

    Example:
        >>> x = torch.rand(3, 1, 4, 4)
        >>> torch.equal(content_keys(x[1:]), content_keys(x)[1:])
        True

    References:
        Lemire and Kaser, "Strongly universal string hashing is fast", The Computer Journal 2014, arXiv:1202.4961.
    """
    flat = x.detach().reshape(len(x), -1).contiguous()
    if flat.dtype is torch.bool:
        flat = flat.to(torch.uint8)
    words = flat.view(_WORDS[flat.element_size()] if not flat.is_complex() else torch.int32).to(torch.int64)
    keys = [(words * numbers).sum(dim=1) for numbers in _numbers(words.shape[1], x.device)]
    return torch.stack(keys, dim=1)


def fingerprint(tensors: Iterable[Tensor]) -> tuple[int, ...]:
    """Hash the content of tensors, one after the other, several times as fast as by their keys.

    ``sum_i (w_i m_i + v_i (m_i >> 32)) mod 2^64`` over the 64-bit words of each row of 4096, and the keys of these
    sums: other values of a tensor have the same hash with probability at most ``2^-33`` over the random numbers.

    Args:
        tensors: Of any dtypes and shapes. Their shapes are not in the hash.

    Example:
        >>> one, two = torch.zeros(3), torch.ones(5000)
        >>> fingerprint([one, two]) == fingerprint([one.clone(), two.clone()])
        True
        >>> fingerprint([one, two]) == fingerprint([one, two + 1])
        False
    """
    found: list[Tensor] = []
    for tensor in tensors:
        flat = tensor.detach().reshape(-1).contiguous()
        if not flat.numel():
            continue
        row = 8 * _ROW // flat.element_size()
        rows, rest = flat[: len(flat) // row * row], flat[len(flat) // row * row :]
        sums = []
        if len(rows):
            if rows.storage_offset() * rows.element_size() % 8:
                rows = rows.clone()  # 64-bit words begin at multiples of 8 bytes
            low, high = _numbers(_ROW, flat.device)
            words = rows.view(torch.int64).view(-1, _ROW)
            for some in (words[at : at + 16] for at in range(0, len(words), 16)):  # which a processor's cache holds
                sums.append((some * low).sum(dim=1) + ((some >> 32) * high).sum(dim=1))
        if len(rest):
            sums.append(content_keys(rest[None])[0])
        found.append(content_keys(torch.cat(sums)[None]))
    return tuple(torch.cat(found).cpu().flatten().tolist()) if found else ()


_ROW = 4096
_KEPT: dict[torch.device, Tensor] = {}


def _numbers(count: int, device: torch.device) -> Tensor:
    """Random numbers ``(2, count)``, the first ones of each row always the same."""
    kept = _KEPT.get(device)
    if kept is None or kept.shape[1] < count:
        rows = [torch.Generator().manual_seed(_SEED + row) for row in range(2)]
        drawn = [torch.randint(-(2**63), 2**63 - 1, (count,), generator=row, dtype=torch.int64) for row in rows]
        _KEPT[device] = kept = torch.stack(drawn).to(device)
    return kept[:, :count]
