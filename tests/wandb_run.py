"""Reading an offline W&B run back."""

import json
import struct
import time
from pathlib import Path


def log_records(data: bytes):
    """Records of a LevelDB log behind W&B's 7 bytes: blocks of 32 KiB with pieces of (crc, size, kind) and bytes."""
    place, record = 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        _, size, kind = struct.unpack_from("<IHB", data, place)
        record += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last piece
            yield record
            record = b""


def history(folder: Path) -> dict:
    """What an offline W&B run holds: the last value of every logged key."""
    from wandb.proto import wandb_internal_pb2

    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    found = {}
    for data in log_records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        for item in (*record.history.item, *record.summary.update):
            name, *inside = list(item.nested_key) or [item.key]
            if inside:
                found.setdefault(name, {})[inside[0]] = json.loads(item.value_json)
            else:
                found[name] = json.loads(item.value_json)
    return found


def history_with(folder: Path, name: str, seconds: float = 30) -> dict:
    """The same as soon as it holds a name: W&B's own process may write after `finish` has returned."""
    end = time.monotonic() + seconds
    while name not in (found := history(folder)) and time.monotonic() < end:
        time.sleep(0.2)
    return found
