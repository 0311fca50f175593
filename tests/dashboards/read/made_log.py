"""Writes logs in W&B's framing, as its client does it, with any records in them."""

import json
import struct
import zlib

from wandb.proto import wandb_internal_pb2 as pb

BLOCK = 32768
HEADER = struct.pack("<4sHB", b":W&B", 0xBEE1, 0)


def chunk(kind, data):
    return struct.pack("<IHB", zlib.crc32(bytes([kind]) + data), len(data), kind) + data


def framed(payloads):
    """The bytes of a log."""
    found = bytearray(HEADER)
    for payload in payloads:
        first, rest = True, payload
        while first or rest:
            left = BLOCK - len(found) % BLOCK
            if left < 7:
                found += bytes(left)
                left = BLOCK
            part, rest = rest[: left - 7], rest[left - 7 :]
            found += chunk((1 if first else 4) if not rest else (2 if first else 3), part)
            first = False
    return bytes(found)


def record(num=0, **what):
    return pb.Record(num=num, **what).SerializeToString()


def run(**what):
    return record(run=pb.RunRecord(**({"run_id": "made"} | what)))


def row(texts):
    """A row of values as JSON, or of what is none."""
    return record(
        history=pb.HistoryRecord(item=[pb.HistoryItem(nested_key=[name], value_json=text) for name, text in texts])
    )


def values(step, **numbers):
    return row([("_step", str(step)), *((name, json.dumps(value)) for name, value in numbers.items())])


def config(**texts):
    items = [pb.ConfigItem(key=name, value_json=text) for name, text in texts.items()]
    return record(config=pb.ConfigRecord(update=items))


def end(code=0):
    return record(exit=pb.RunExitRecord(exit_code=code, runtime=3))
