import pytest
import torch

from lightning_trainingkit.experiments import newest_checkpoint


def test_the_newest_checkpoint_is_the_one_with_most_steps(tmp_path):
    assert newest_checkpoint(tmp_path) is None
    torch.save([1, 2], tmp_path / "list.ckpt")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "weights.ckpt")
    assert newest_checkpoint(tmp_path) is None
    for name, step in (("b", 20), ("a", 10), ("last", 20)):
        torch.save({"global_step": step}, tmp_path / f"{name}.ckpt")
    assert newest_checkpoint(tmp_path) == tmp_path / "last.ckpt"


def test_a_damaged_checkpoint_is_named(tmp_path):
    torch.save({"global_step": 10, "weight": torch.zeros(1000)}, tmp_path / "a.ckpt")
    content = bytearray((tmp_path / "a.ckpt").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "a.ckpt").write_bytes(content)
    with pytest.raises(ValueError, match=r"a.ckpt` must be a whole checkpoint"):
        newest_checkpoint(tmp_path)
