import time

import pytest
import torch
from torch import nn

from lightning_trainingkit.nn.averaging.member_files import find_members, read_members


def test_many_members_are_found_and_read_in_a_moment(tmp_path):
    for i in range(800):
        torch.save({"weight": torch.full((2, 2), float(i))}, tmp_path / f"{i}.ckpt")
    began = time.perf_counter()
    assert [path.name for path in find_members(str(tmp_path / "*.ckpt"))] == [f"{i}.ckpt" for i in range(800)]
    assert time.perf_counter() - began < 2
    assert len(read_members(str(tmp_path / "*.ckpt"))) == 800


def test_one_file_by_two_names_and_one_module_twice(tmp_path):
    torch.save(nn.Linear(3, 2).state_dict(), tmp_path / "a.ckpt")
    (tmp_path / "b.ckpt").symlink_to(tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=r"got .*a.ckpt and .*b.ckpt, which are one file. Give it a larger weight"):
        find_members([tmp_path / "a.ckpt", nn.Linear(3, 2), tmp_path / "b.ckpt"])
    module = nn.Linear(3, 2)
    with pytest.raises(ValueError, match="got a Linear twice"):
        find_members([module, nn.Linear(3, 2), module])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8, torch.bool, torch.complex64])
def test_a_copy_is_found_among_others(tmp_path, dtype):
    weights = {"weight": torch.eye(3).to(dtype), "scale": torch.ones(()), "extra": [1]}
    others = [weights | {"scale": torch.zeros(())}, weights | {"weight": torch.eye(3).to(dtype).T[:, :2]}]
    for i, each in enumerate([weights, *others]):
        torch.save(each, tmp_path / f"{i}.ckpt")
    assert len(read_members(str(tmp_path / "*.ckpt"))) == 3
    torch.save(dict(reversed(weights.items())), tmp_path / "3.ckpt")
    with pytest.raises(ValueError, match=r"the same weights from .*0.ckpt and .*3.ckpt. Is one a copy"):
        read_members(str(tmp_path / "*.ckpt"))


def test_a_damaged_member_is_named(tmp_path):
    path = tmp_path / "a.ckpt"
    torch.save({"weight": torch.zeros(1000)}, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a.ckpt` must be a whole checkpoint"):
        read_members(path)
