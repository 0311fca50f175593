import errno
import gc
import os

import pytest
import torch

from lightning_trainingkit.nn.transfer.disk_room import DiskRoom

PAGE = DiskRoom.rounded(1)


def small_disk(monkeypatch, size, name="posix_fallocate"):
    """Let a disk have so many bytes."""
    allocate = getattr(os, name)

    def limited(file, *arguments):
        start, count = (arguments[1], len(arguments[0])) if name == "pwrite" else arguments
        if start + count > size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return allocate(file, *arguments)

    monkeypatch.setattr(os, name, limited)


@pytest.mark.parametrize("system", ["posix_fallocate", "pwrite"])
def test_room_that_is_missing_is_said_with_folder_and_size(system, tmp_path, monkeypatch):
    if system == "pwrite":
        monkeypatch.delattr(os, "posix_fallocate")
    small_disk(monkeypatch, 2**21, system)
    room = DiskRoom(tmp_path / "features")
    room.reserve(2**21)
    with pytest.raises(
        ValueError, match=rf"`cache_features='disk'` must have room .*{tmp_path}/features, got .* GiB of 3 GiB"
    ):
        room.reserve(3 * 2**30)
    assert room.take(2**21).numel() == 2**21  # what was reserved stays
    with pytest.raises(ValueError, match="No space left on device"):
        room.take(1)


def test_pieces_do_not_overlap_are_reused_and_the_file_has_no_name(tmp_path):
    room = DiskRoom(tmp_path)
    first, second = room.take(5), room.take(PAGE + 1)
    first.fill_(1)
    second.fill_(2)
    assert first.tolist() == [1] * 5
    assert not list(tmp_path.iterdir())
    room.clear()
    third = room.take(3).view(torch.uint8)
    assert third.tolist() == [1] * 3
    del room
    gc.collect()
    assert second.sum() == 2 * (PAGE + 1)  # mapped for as long as it is used


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="`cache_features='disk'` must have a folder that can be written to"):
        DiskRoom(tmp_path / "file" / "folder")
