import random
import zipfile

import pytest
import torch
from torch import nn

from lightning_trainingkit.nn import explain_failure
from lightning_trainingkit.nn.weights.read_checkpoint import RUN, check_run, read_checkpoint


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def outcome(path):
    """What is read, or what the one error says."""
    try:
        return read_checkpoint(path), ""
    except ValueError as error:
        return None, str(error)


@pytest.fixture
def weights():
    return nn.Sequential(nn.Linear(40, 20), nn.BatchNorm1d(20)).state_dict()


def test_one_flipped_bit_is_an_error_or_changes_nothing(tmp_path, weights):
    path = tmp_path / "net.pt"
    torch.save(weights, path)
    content = path.read_bytes()
    draw, damaged = random.Random(0), 0
    for i in range(300):
        other = bytearray(content)
        other[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path = tmp_path / f"{i}.pt"
        path.write_bytes(other)
        read, said = outcome(path)
        assert said.startswith(f"`{path}` must be ") if said else equal(read, weights)
        damaged += bool(said)
    assert damaged > 100


@pytest.mark.parametrize("kind", ["truncated", "legacy", "noise"])
def test_unreadable_files_of_any_kind_are_one_error(tmp_path, weights, kind, caplog):
    path = tmp_path / "net.pt"
    torch.save(weights, path, _use_new_zipfile_serialization=kind != "legacy")
    content = path.read_bytes()
    draw = random.Random(1)
    for i in range(100):
        other = bytearray(content[: draw.randrange(len(content))] if kind == "truncated" else content)
        if kind == "noise":
            other = bytearray(draw.randbytes(draw.randrange(2000)))
        for _ in range(5 if kind == "legacy" else 0):
            other[draw.randrange(600)] ^= 1 << draw.randrange(8)
        path = tmp_path / f"{i}.pt"
        path.write_bytes(other)
        _, said = outcome(path)
        assert said.startswith(f"`{path}` must be ") or (kind == "legacy" and not said)


def test_the_sums_are_read_once_for_each_state_of_a_file(tmp_path, weights, monkeypatch):
    path = tmp_path / "net.pt"
    torch.save(weights, path)
    read_checkpoint(path)
    monkeypatch.setattr(zipfile.ZipFile, "testzip", lambda self: pytest.fail("read again"))
    assert equal(read_checkpoint(path), weights)


@pytest.mark.parametrize("kind", ["without sums", "legacy"])
def test_a_file_without_sums_is_read_and_one_line_says_so(tmp_path, weights, kind, caplog):
    path = tmp_path / "net.pt"
    computed = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(kind == "legacy")
    try:
        torch.save(weights, path, _use_new_zipfile_serialization=kind != "legacy")
    finally:
        torch.serialization.set_crc32_options(computed)
    for _ in range(2):
        assert equal(read_checkpoint(path), weights)
    (line,) = caplog.messages
    assert line == f"{path} has no checksums: damage to its numbers would not show."


def test_what_is_no_file(tmp_path):
    with pytest.raises(ValueError, match=r"must be a file that can be read, got Is a directory"):
        read_checkpoint(tmp_path)
    with pytest.raises(FileNotFoundError, match="must be a checkpoint, got no such file"):
        read_checkpoint(tmp_path / "none")


@pytest.mark.parametrize("error", [KeyError("a"), IndexError(), AttributeError("b"), UnicodeError(), EOFError()])
def test_whatever_a_reader_raises_is_the_one_error(error):
    refused = pytest.raises(ValueError, match=r"`x` must be a whole checkpoint written by torch, got a .* file")
    with refused, explain_failure("x"):
        raise error


@pytest.mark.parametrize("content", [{}, {"callbacks": {}}, {"callbacks": {"a": {RUN: "me"}, "b": {"c": 1}}}, [1]])
def test_the_run_that_wrote_a_file(content):
    check_run("x.ckpt", content, "me")
    check_run("x.ckpt", content, "")


def test_the_file_of_another_run():
    with pytest.raises(ValueError, match=r"`x.ckpt` must be the file of this run, got a file that another run has put"):
        check_run("x.ckpt", {"callbacks": {"a": {RUN: "other"}}}, "me")
