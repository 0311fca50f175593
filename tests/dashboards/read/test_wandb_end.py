import threading
import time

import pytest

from lightning_trainingkit.dashboards.read.wandb_end import wait_for_end
from tests.dashboards.read.made_log import BLOCK, end, framed, run, values


def test_the_end_is_waited_for(tmp_path):
    path = tmp_path / "run-made.wandb"
    content = framed([run(), values(1, loss=2.0), end()])
    path.write_bytes(content[:-10])
    start = time.monotonic()
    assert not wait_for_end(path, seconds=0.2)
    assert not wait_for_end(tmp_path / "nowhere", seconds=0)
    assert 0.2 <= time.monotonic() - start < 1
    later = threading.Timer(0.2, path.write_bytes, [content])
    later.start()
    assert wait_for_end(path, seconds=5)
    assert time.monotonic() - start < 2
    later.join()


@pytest.mark.parametrize("short", [0, 3, 8, 12, 15, 20, 5000])
def test_the_end_of_a_large_file_is_found_wherever_its_blocks_end(tmp_path, short):
    path, rows = tmp_path / "run-made.wandb", [run(), b"\x08\x01" * (5 * BLOCK // 2)]
    filled = len(framed(rows)) % BLOCK
    rows.append(b"\x08\x01" * ((2 * BLOCK - filled - 14 - short) // 2))
    path.write_bytes(framed(rows))
    assert not wait_for_end(path, seconds=0)
    path.write_bytes(framed([*rows, end()]))
    assert wait_for_end(path, seconds=0)
