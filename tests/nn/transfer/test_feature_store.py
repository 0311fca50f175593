import pytest
import torch

from lightning_trainingkit.nn.transfer.feature_store import FeatureStore, StoreFullError


def rows(*numbers, dtype=torch.float32):
    return [torch.tensor(numbers, dtype=dtype)[:, None].expand(-1, 3), torch.tensor(numbers)]


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_come_back_by_key(on_disk, dtype, tmp_path):
    store = FeatureStore(10**6, tmp_path / "folder" if on_disk else None)
    for first in range(0, 50, 5):  # grows several times
        store.add([(n,) for n in range(first, first + 5)], rows(*range(first, first + 5), dtype=dtype))
    store.add([(3,), (70,), (70,)], rows(9, 70, 71, dtype=dtype))  # of equal keys the first counts
    assert len(store) == 51
    found, numbers = store.take([(70,), (3,), (49,)], torch.device("cpu"))
    assert found.dtype == dtype
    assert torch.equal(found, rows(70, 3, 49, dtype=dtype)[0])
    assert numbers.tolist() == [70, 3, 49]
    assert not on_disk or not list((tmp_path / "folder").iterdir())  # the file has no name any more
    store.clear()
    assert len(store) == store.bytes == 0


def test_the_limit_holds():
    store = FeatureStore(10 * 20)
    store.add([(n,) for n in range(4)], rows(*range(4)))
    store.reserve(rows(0), 1000)
    assert store.bytes == 200
    store.add([(n,) for n in range(10)], rows(*range(10)))
    with pytest.raises(StoreFullError):
        store.add([(10,)], rows(10))
    assert store.take([(9,)], torch.device("cpu"))[1].item() == 9


def test_what_inference_makes_can_be_trained_on():
    store = FeatureStore(1000)
    with torch.inference_mode():
        store.add([(1,)], rows(1))
    found, _ = store.take([(1,)], torch.device("cpu"))
    weight = torch.ones(3, requires_grad=True)
    (found @ weight).sum().backward()
    assert weight.grad.tolist() == [1, 1, 1]
