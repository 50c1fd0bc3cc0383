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
        if place + 7 + size > len(data):
            return  # still being written
        record += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last piece
            yield record
            record = b""


def history(folder: Path) -> dict:
    """What an offline W&B run holds: the last value of every logged key."""
    from wandb.proto import wandb_internal_pb2

    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    found, records = {}, []
    for _ in range(200):  # another process writes it, to the end of the run
        records = [wandb_internal_pb2.Record.FromString(data) for data in log_records(path.read_bytes())]
        if any(record.HasField("exit") for record in records):
            break
        time.sleep(0.1)
    for record in records:
        for item in (*record.history.item, *record.summary.update):
            name, *inside = list(item.nested_key) or [item.key]
            if inside:
                found.setdefault(name, {})[inside[0]] = json.loads(item.value_json)
            else:
                found[name] = json.loads(item.value_json)
    return found
