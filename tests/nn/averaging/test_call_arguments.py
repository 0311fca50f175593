from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch

from lightning_trainingkit.nn.averaging.call_arguments import CallArguments

Pair = namedtuple("Pair", ["image", "name"])


@dataclass
class Record:
    image: torch.Tensor
    scale: float


def images(n=4, size=6, channels=3):
    return torch.arange(float(n)).view(n, 1, 1, 1).expand(n, channels, size, size).contiguous()


def same(one, other):
    """Whether two structures hold the same, tensors by value."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return type(one) is type(other) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, Record):
        return isinstance(other, Record) and same(vars(one), vars(other))
    return type(one) is type(other) and one == other


def arguments():
    x = images()
    nested = {
        "image": x,
        "meta": [{"boxes": torch.arange(8).view(4, 2), "path": ["a", "b", "c", "d"]}, None],
        "pair": Pair(x + 10, ("e", "f", "g", "h")),
        "record": Record(x + 20, 0.5),
    }
    return (nested, torch.tensor(3.0), torch.eye(3), "text", (2, 2)), {
        "mask": torch.arange(4),
        "size": [6, 6],
        "flag": True,
    }


def test_what_is_untouched_comes_out_as_it_went_in():
    given = arguments()
    assert same(CallArguments(given).arguments, given)
    assert same(CallArguments(given).take(slice(0, 4)).arguments, given)
    assert same(CallArguments(given).take(torch.arange(4)).arguments[1], given[1])


@pytest.mark.parametrize("rows", [slice(1, 3), torch.tensor([1, 2])])
def test_takes_rows_of_what_has_one_for_each_sample_and_leaves_the_rest(rows):
    (nested, scalar, eye, text, pair), named = CallArguments(arguments()).take(rows).arguments
    assert nested["image"][:, 0, 0, 0].tolist() == [1, 2]
    assert nested["meta"][0]["boxes"].tolist() == [[2, 3], [4, 5]]
    assert nested["meta"][0]["path"] == ["b", "c"]
    assert nested["meta"][1] is None
    assert nested["pair"].image[:, 0, 0, 0].tolist() == [11, 12]
    assert list(nested["pair"].name) == ["f", "g"]
    assert nested["record"].image[:, 0, 0, 0].tolist() == [21, 22]
    assert nested["record"].scale == 0.5
    assert scalar.item() == 3
    assert torch.equal(eye, torch.eye(3))
    assert (text, pair, named["size"], named["flag"]) == ("text", (2, 2), [6, 6], True)
    assert named["mask"].tolist() == [1, 2]


def test_part_of_a_batch_does_not_take_other_things_for_samples():
    table, sizes = torch.eye(2), [5, 5]  # two entries, as the part of two samples
    batch = CallArguments(((images(), table), {"sizes": sizes}))
    part = batch.take(slice(0, 2))
    single = part.take(torch.tensor([0]))
    for each, n in ((part, 2), (single, 1), (part.join([part]), 4)):
        (x, same_table), named = each.arguments
        assert len(x) == each.size == n
        assert same_table is table
        assert named["sizes"] == sizes


def test_views_all_images_and_nothing_else():
    given = arguments()
    (nested, _, eye, *_), named = CallArguments(given).view(lambda x: x[..., :2, :3]).arguments
    assert nested["image"].shape == nested["pair"].image.shape == nested["record"].image.shape == (4, 3, 2, 3)
    assert nested["meta"][0]["boxes"].shape == (4, 2)
    assert eye.shape == (3, 3)
    assert named["mask"].shape == (4,)
    assert given[0][0]["image"].shape == (4, 3, 6, 6)


def test_images_may_be_bytes_but_not_indices():
    x = torch.zeros(2, 3, 4, 4)
    batch = CallArguments(((x.byte(), x.long(), x.half()), {})).view(lambda x: x[..., :1])
    assert [each.shape[-1] for each in batch.arguments[0]] == [1, 4, 1]


def test_joins_the_samples_of_several_batches():
    batch = CallArguments(arguments())
    joined = batch.join([batch.view(lambda x: x + 100), batch])
    assert joined.size == 12
    (nested, scalar, eye, *_), named = joined.arguments
    assert nested["image"][:, 0, 0, 0].tolist() == [0, 1, 2, 3, 100, 101, 102, 103, 0, 1, 2, 3]
    assert nested["meta"][0]["path"] == list("abcdabcdabcd")
    assert list(nested["pair"].name) == list("efghefghefgh")
    assert eye.shape == (3, 3)
    assert scalar.ndim == 0
    assert named["mask"].tolist() == [0, 1, 2, 3] * 3
    assert batch.join([]) is batch


def test_samples_are_those_of_the_images_wherever_they_stand():
    batch = CallArguments((({"tokens": torch.zeros(7, 2), "image": images(4)},), {}))
    assert batch.size == 4
    assert batch.take(slice(0, 1)).arguments[0][0]["tokens"].shape == (7, 2)


def test_without_images_samples_are_those_of_the_first_tensor_with_dimensions():
    batch = CallArguments(((torch.tensor(1.0), torch.zeros(5, 2), torch.zeros(3)), {}))
    assert batch.size == 5
    with pytest.raises(ValueError, match=r"called with images .* got tensors of \(5, 2\)"):
        batch.view(lambda x: x)


def test_arguments_themselves_are_not_a_list_of_strings():
    given = (("one", "two"), {"x": torch.zeros(2, 3)})
    assert CallArguments(given).take(slice(0, 1)).arguments[0] == ("one", "two")


@pytest.mark.parametrize(
    ("given", "found"), [(((), {}), "nothing"), ((("a",), {"b": [1]}), "str, list"), ((torch.tensor(1.0),), "Tensor")]
)
def test_refuses_a_call_without_samples(given, found):
    given = given if len(given) == 2 else (given, {})
    with pytest.raises(TypeError, match=f"`target` must be called with a tensor of samples, got {found}"):
        CallArguments(given)


def test_empty_batches_stay_empty():
    batch = CallArguments(((torch.zeros(0, 3, 4, 4), ["x"]), {"names": []}))
    assert batch.view(lambda x: x.flip(-1)).join([batch]).size == 0
    assert batch.arguments[0][1] == ["x"]


def test_memory_format_survives():
    x = images().contiguous(memory_format=torch.channels_last)
    batch = CallArguments(((x,), {}))
    for each in (batch.take(torch.tensor([0, 2])), batch.view(lambda x: x.flip(-1)), batch.join([batch])):
        assert each.arguments[0][0].is_contiguous(memory_format=torch.channels_last)
