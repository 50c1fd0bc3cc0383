"""Scores of a pool of any size, streamed to disk: one Parquet file per process, memory of a block of records."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch.distributed as dist

from rlhf.data.render import Encoded
from rlhf.data.source import RecordStream
from rlhf.records import Comparison
from rlhf.reward.scoring.engine import GroupScores
from rlhf.reward.scoring.once import ScoreMemo
from rlhf.reward.scoring.scorer import Scorer

SCHEMA = pa.schema(
    {
        "record": pa.int64(),
        "prompt_id": pa.string(),
        "completion_id": pa.string(),
        "reward": pa.float32(),
        "members": pa.list_(pa.float32()),
    }
)
"""`reward` is null for a completion too long to be read; `members` is empty where there is one head."""
WRITTEN_TOGETHER = 1000  # rows of one write
SCORED_TOGETHER = 256  # records that go to the engine together: as far as the stream is read ahead


def score_pool(scorer: Scorer, source: RecordStream, folder: str | Path) -> pa.Table:
    """Reward of every completion of a pool; labels are not looked at.

    Where `torch.distributed` is initialised, every process scores its share with its own scorer.

    Args:
        scorer: the reward model, on the device of this process.
        source: the records; they are read as a stream.
        folder: is filled with `scores-<rank>.parquet`; must not hold any yet.

    Returns:
        All processes' scores in the order of the pool, memory-mapped.

    Raises:
        FileExistsError: there are scores in the folder.
    """
    parallel = dist.is_available() and dist.is_initialized()
    rank, world = (dist.get_rank(), dist.get_world_size()) if parallel else (0, 1)
    path = Path(folder) / f"scores-{rank}.parquet"
    if path.exists():
        raise FileExistsError(f"{path} exists: scores are not overwritten, choose another folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = _rows(scorer, ((i, r) for i, r in enumerate(source.records()) if i % world == rank))
    with pq.ParquetWriter(path, SCHEMA) as file:
        while some := list(islice(rows, WRITTEN_TOGETHER)):
            file.write_table(pa.Table.from_pylist(some, SCHEMA))
    if parallel:
        dist.barrier()
    return read_scores(folder)


def read_scores(folder: str | Path) -> pa.Table:
    """What `score_pool` wrote, in the order of the pool. Raises FileNotFoundError where there is nothing."""
    files = sorted(Path(folder).glob("scores-*.parquet"))
    if not files:
        raise FileNotFoundError(f"{folder} holds no scores-*.parquet")
    table = pa.concat_tables([pq.read_table(f, memory_map=True) for f in files])
    return table.sort_by("record") if len(files) > 1 else table


def _rows(scorer: Scorer, records: Iterable[tuple[int, Comparison]]) -> Iterator[dict[str, Any]]:
    """One row per completion."""
    encode, memo = scorer.renderer.encode, ScoreMemo(scorer.engine)
    stream = iter(records)
    while block := list(islice(stream, SCORED_TOGETHER)):
        groups = [encode(r.prompt, [c.text for c in r.completions]) for _, r in block]
        for (number, record), group, found in zip(block, groups, memo.score(groups), strict=True):
            yield from _of_record(number, record, group, found)


def _of_record(number: int, record: Comparison, group: Encoded, found: GroupScores) -> Iterator[dict[str, Any]]:
    """One row per completion of a record."""
    reward, members = found.reward.tolist(), found.members.T.tolist() if found.members.ndim == 2 else []
    places = {k: n for n, k in enumerate(group.kept)}
    for k, completion in enumerate(record.completions):
        n = places.get(k)
        yield {
            "record": number,
            "prompt_id": record.prompt_id,
            "completion_id": completion.id,
            "reward": None if n is None else reward[n],
            "members": [] if n is None or not members else members[n],
        }
