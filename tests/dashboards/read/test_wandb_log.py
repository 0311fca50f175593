import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_trainingkit.dashboards.read.record import UnreadableError
from lightning_trainingkit.dashboards.read.wandb_log import WandbLog
from tests.dashboards.read.made_log import BLOCK, HEADER, chunk, framed

SIZES = st.one_of(st.integers(0, 300), st.integers(BLOCK - 40, BLOCK + 40), st.integers(0, 3 * BLOCK))


def read(content, path):
    path.write_bytes(content)
    with path.open("rb") as file:
        log = WandbLog(file)
        return list(log), log


@pytest.fixture
def opened(tmp_path):
    return lambda content: read(content, tmp_path / "log")


def payload(number, size=100):
    return (number.to_bytes(4, "little") * (size // 4 + 1))[:size]


@settings(max_examples=60, deadline=None)
@given(st.lists(SIZES, max_size=12), st.data())
def test_what_was_framed_is_read_and_what_is_cut_off_is_whole_up_to_there(tmp_path_factory, sizes, data):
    payloads = [payload(number, size) for number, size in enumerate(sizes)]
    content, path = framed(payloads), tmp_path_factory.getbasetemp() / "framed"
    found, log = read(content, path)
    assert found == payloads
    assert (log.damaged, log.cut_off, log.version) == (0, False, 0)
    size = data.draw(st.integers(len(HEADER), len(content)))
    found, log = read(content[:size], path)
    assert found == payloads[: len(found)]
    assert log.damaged == 0
    assert found == payloads or len(framed(payloads[: len(found) + 1])) > size


@pytest.mark.parametrize("at", [0, 3, 4, 5, 6, 7, 50])  # checksum, length (longer, far too long), kind, data
def test_a_flipped_bit_costs_one_record(opened, at):
    payloads = [payload(number) for number in range(1000)]
    for number in (0, 305, 998):
        content = bytearray(framed(payloads))
        start = content.index(chunk(1, payloads[number]))
        content[start + at] ^= 0x40
        found, log = opened(content)
        assert found == payloads[:number] + payloads[number + 1 :]
        assert (log.damaged, log.damaged_bytes, log.cut_off) == (1, 107, False)


def test_zeros_between_records_are_damage_and_at_the_end_they_are_its_end(opened):
    payloads = [payload(number) for number in range(1, 1001)]
    content = framed(payloads)
    hole = content[:1000] + bytes(3 * BLOCK - 1000) + content[3 * BLOCK :]
    found, log = opened(hole)
    assert found[:9] == payloads[:9]
    assert found[9:] == payloads[-len(found) + 9 :]
    assert (log.damaged, log.cut_off) == (1, False)
    for size, damaged in ((content.index(chunk(1, payloads[9])), 0), (1000, 1)):  # behind a record, within one
        found, log = opened(content[:size] + bytes(5 * BLOCK))
        assert found == payloads[:9]
        assert (log.damaged, log.cut_off) == (damaged, True)


def test_a_record_of_several_blocks_that_lost_one_is_left_out(opened):
    payloads = [payload(1), payload(2, 4 * BLOCK), payload(3)]
    for damage in range(4):
        content = bytearray(framed(payloads))
        content[damage * BLOCK + 5000] ^= 1
        found, log = opened(content)
        assert found == [payloads[0], payloads[2]]
        assert log.damaged == 1
    without_end = HEADER + chunk(2, b"begins") + chunk(1, b"whole") + chunk(3, b"goes on") + chunk(4, b"ends")
    found, log = opened(without_end + chunk(1, b"last"))
    assert found == [b"whole", b"last"]
    assert log.damaged == 2


def test_what_is_appended_while_reading_waits_for_the_next_time(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(framed([b"one"]))
    with path.open("rb") as file, path.open("ab") as more:
        log = WandbLog(file)
        more.write(chunk(1, b"two"))
        more.flush()
        assert list(log) == [b"one"]


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", "it is empty"), (b":W&", "begins with b':W&'"), (b"hello, world", "begins with b'hell'")],
)
def test_other_files_are_named(opened, content, why):
    with pytest.raises(UnreadableError, match=why):
        opened(content)


def test_what_is_made_to_be_slow_or_large_is_not(opened):
    draw = random.Random(0)
    start = time.monotonic()
    for content in (
        b"\x01\x40" * (8 << 20),  # each byte begins a chunk of 16 KiB whose checksum is wrong
        draw.randbytes(8 << 20),
        b"".join(chunk(1, b"") + b"\x01" * 5 for _ in range(200_000)),
        chunk(2, b"") + chunk(3, b"") * 1_000_000,
    ):
        _, log = opened(HEADER + content)
        assert log.damaged
    assert time.monotonic() - start < 20
    huge = HEADER + b"".join(chunk(kind, bytes(BLOCK - 7 - 7 * first)) for kind, first in [(2, 1)] + [(3, 0)] * 600)
    assert opened(huge + chunk(4, b"") + chunk(1, b"next"))[0] == [b"next"]
