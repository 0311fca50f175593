import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_trainingkit.functional.content_keys import content_keys


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.uint8, torch.int64, torch.bool, torch.complex64]
)
def test_a_key_is_that_of_the_content_alone(dtype):
    x = (torch.randn(6, 3, 5, 7) * 50).to(dtype) if dtype is not torch.bool else torch.rand(6, 3, 5, 7) > 0.5
    keys = content_keys(x)
    assert keys.shape == (6, 2)
    assert keys.dtype == torch.int64
    assert torch.equal(content_keys(x.flip(0)), keys.flip(0))
    assert torch.equal(content_keys(x.to(memory_format=torch.channels_last)), keys)
    assert torch.equal(content_keys(x.clone()), keys)
    assert len({tuple(key) for key in keys.tolist()}) == 6


@given(st.integers(0, 11), st.integers(0, 31), st.integers(0, 11), st.integers(0, 31))
def test_each_bit_counts_and_so_do_two_of_them(word, bit, other, other_bit):
    x = torch.zeros(1, 12, dtype=torch.int32)
    y = x.clone()
    y[0, word] ^= 1 << bit if bit < 31 else -(2**31)
    y[0, other] ^= 1 << other_bit if other_bit < 31 else -(2**31)
    assert torch.equal(content_keys(x.view(torch.float32)), content_keys(y.view(torch.float32))) == torch.equal(x, y)


def test_many_images_have_many_keys_and_order_within_an_image_counts():
    x = torch.randint(0, 2, (4000, 16), dtype=torch.uint8).unique(dim=0)
    assert len({tuple(key) for key in content_keys(x).tolist()}) == len(x)
    assert not torch.equal(content_keys(torch.tensor([[1.0, 2.0]])), content_keys(torch.tensor([[2.0, 1.0]])))
    long, short = torch.arange(100.0)[None], torch.arange(10.0)[None]
    first = content_keys(short)
    content_keys(long)  # which needs more random numbers
    assert torch.equal(content_keys(short), first)
