"""A frozen trunk is asked once: states of all texts in the cache, on which heads train in seconds.

Published precedent: linear heads on frozen 8B models lead reward benchmarks. The states are scaled to unit spread
within prompts while the head trains, and the head starts at 0; at the end the scale is put into its weights.
"""

import fcntl
import json
import os
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from rlhf.data.batch import States
from rlhf.data.datamodule import PreferenceData
from rlhf.data.distinct import keys_of
from rlhf.data.render import Encoded
from rlhf.data.store import Rows, fingerprint
from rlhf.data.token_layout import Ids, bare
from rlhf.models.backbone import Backbone
from rlhf.models.reward_model import RewardModel
from rlhf.records import RecordError
from rlhf.reward.scoring.engine import ScoringEngine

CHECK = b"states"  # key of a file's checksum
PART = 4096  # states of one file: what a killed run has to compute again, at most


class CachedStates:
    """A token layout that looks states up instead of laying tokens.

    Args:
        folder: of one trunk's states, in files of `PART` at most; those that a killed run left unfinished are not read.

    Raises:
        RecordError: a file is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._parts: list[NDArray[np.float32]] = []
        keys = [np.zeros(0, np.uint64)]
        for file in sorted(folder.glob("*.arrow")):
            batch = _read(file)
            keys.append(batch.column("key").to_numpy())
            self._parts.append(batch.column("state").flatten().to_numpy().reshape(batch.num_rows, -1))
        self._starts = np.cumsum([0, *map(len, self._parts)])
        flat = np.concatenate(keys)
        self._order = np.argsort(flat)
        self.keys = flat[self._order]

    def __reduce__(self) -> tuple[Any, ...]:
        return CachedStates, (self.folder,)  # a process that collates maps the files itself

    def __call__(self, prompts: Sequence[Ids], responses: Sequence[Sequence[Ids]]) -> States:
        """States [N, D] of the completions. Raises RecordError for one that has none."""
        wanted = chain.from_iterable(keys_of(p, answers) for p, answers in zip(prompts, responses, strict=True))
        return States(self.of(np.fromiter(wanted, np.uint64)))

    def of(self, keys: NDArray[np.uint64]) -> Float[Tensor, "N D"]:
        """States of completions by key."""
        place = np.searchsorted(self.keys, keys)
        known = place < len(self.keys)
        known[known] = self.keys[place[known]] == keys[known]
        if not known.all():
            raise RecordError(
                f"{self.folder}: {(~known).sum()} of {len(keys)} completions have no state here, because their tokens "
                "are not those of the prepared data",
                remedy="adapter.cache_states=false asks the trunk itself",
            )
        number = self._order[place]
        part = np.searchsorted(self._starts, number, "right") - 1
        found = np.empty((len(keys), self._parts[0].shape[1]), np.float32)
        for p in np.unique(part):
            found[part == p] = self._parts[p][number[part == p] - self._starts[p]]
        return torch.from_numpy(found)


def cached_states(data: PreferenceData, model: RewardModel, folder: Path) -> CachedStates:
    """States of every completion of the prepared data: read from the cache, or computed and left there.

    Args:
        data: set up, with the layout that the trunk would read.
        model: its trunk is asked; the head is not.
        folder: the cache. States lie in a folder of their own for each trunk and way of reading it, by the tokens of
            prompt and completion: data that shares texts with earlier data shares their states. Of processes that
            need the same states at the same time, one computes them, and the others wait.
    """
    own = folder / f"states-{_fingerprint(data, model.backbone)}"
    wanted = np.unique(np.concatenate([np.fromiter(_keys(rows), np.uint64) for rows in data.rows.values()]))
    with _alone_in(own):
        found = CachedStates(own)
        missing = np.setdiff1d(wanted, found.keys, assume_unique=True)
        if not len(missing):
            return found
        print(f"states: the trunk reads {len(missing)} of {len(wanted)} texts, once; kept in {own}", flush=True)
        write_states(own, _engine(data, model), data.rows.values(), missing)
        return CachedStates(own)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """One process at a time; the lock is on the folder itself, and a killed process leaves none."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def write_states(folder: Path, engine: ScoringEngine, splits: Iterable[Rows], missing: NDArray[np.uint64]) -> None:
    """Write the states of the completions with these keys; a file appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    asked: deque[list[int]] = deque()
    keys: list[int] = []
    states: list[NDArray[np.float32]] = []
    for scores in engine.score(_groups(splits, set(missing.tolist()), asked)):
        keys += asked.popleft()
        states.append(scores.states.numpy())
        if len(keys) >= PART:
            _write(folder, keys, np.concatenate(states))
            keys, states = [], []
    if keys:
        _write(folder, keys, np.concatenate(states))


def spread(model: RewardModel, data: PreferenceData, rows: int | None = None) -> Float[Tensor, " D"]:
    """What states are divided by [D], so that those of a prompt spread by 1 in all.

    Their standard deviations within the prompts of the first `rows` training rows (None = all), times √D: of the
    trunk's states and of the surface features each by themselves, so that a few features weigh as much as many
    dimensions.
    """
    backbone = model.backbone
    total, count = torch.zeros(backbone.hidden_size, dtype=torch.float64), 0
    groups = (_group(prompt, answers) for prompt, answers in islice(data.rows["train"].texts(), rows))
    for scores in _engine(data, model).score(groups):
        found = scores.states.double()
        total += (found - found.mean(0)).square().sum(0)
        count += len(found) - 1
    deviation = (total / max(count, 1)).sqrt().float()
    deviation = torch.where(deviation > 1e-6 * deviation.max(), deviation, 1)
    sizes = torch.tensor([backbone.state_size, backbone.hidden_size - backbone.state_size])
    return deviation * sizes.repeat_interleave(sizes).sqrt()


def _engine(data: PreferenceData, model: RewardModel) -> ScoringEngine:
    """What reads texts as training would: in its layout, but within a budget of tokens."""
    engine = ScoringEngine(model, pad_id=0, max_length=data.renderer.max_length)
    engine.layout = data.layout
    return engine


def _keys(rows: Rows) -> Iterator[int]:
    return chain.from_iterable(keys_of(prompt, answers) for prompt, answers in rows.texts())


def _groups(splits: Iterable[Rows], missing: set[int], asked: deque[list[int]]) -> Iterator[Encoded]:
    """Completions whose keys are `missing`, once each, row by row; `asked` gets the keys of every group."""
    for prompt, answers in chain.from_iterable(rows.texts() for rows in splits):
        new = {key: r for key, r in zip(keys_of(prompt, answers), answers, strict=True) if key in missing}
        missing -= new.keys()
        if new:
            asked.append(list(new))
            yield _group(prompt, new.values())


def _group(prompt: NDArray[np.int32], answers: Iterable[NDArray[np.int32]]) -> Encoded:
    responses = [answer.tolist() for answer in answers]
    return Encoded(prompt.tolist(), responses, list(range(len(responses))), 0, 0)


def _write(folder: Path, keys: list[int], states: NDArray[np.float32]) -> None:
    column = pa.FixedSizeListArray.from_arrays(pa.array(states.ravel()), states.shape[1])
    batch = pa.RecordBatch.from_arrays([pa.array(keys, pa.uint64()), column], ["key", "state"])
    batch = batch.replace_schema_metadata({CHECK: _digest(batch)})
    unfinished, name = tempfile.mkstemp(dir=folder)
    try:
        with os.fdopen(unfinished, "wb") as raw, pa.ipc.new_stream(raw, batch.schema) as stream:
            stream.write_batch(batch)
        Path(name).chmod(0o666 & ~_umask())  # others who share the cache may read it
        os.replace(name, folder / f"{blake2b(np.array(keys, np.uint64).tobytes(), digest_size=8).hexdigest()}.arrow")
    finally:
        Path(name).unlink(missing_ok=True)


def _read(file: Path) -> pa.RecordBatch:
    try:
        with pa.memory_map(str(file)) as source:
            batch = pa.ipc.open_stream(source).read_next_batch()
        stored = (batch.schema.metadata or {}).get(CHECK)
        if stored is not None and stored != _digest(batch):
            raise OSError("its states are not those that were written")
    except (OSError, pa.ArrowInvalid, StopIteration) as error:
        remedy = f"rm {file}: its states are computed again"
        raise RecordError(f"is damaged: {error}", place=str(file), remedy=remedy) from error
    return batch


def _digest(batch: pa.RecordBatch) -> bytes:
    """Of the states' bytes."""
    return blake2b(batch.column("state").flatten().to_numpy().tobytes(), digest_size=8).hexdigest().encode()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _fingerprint(data: PreferenceData, backbone: Backbone) -> str:
    """Changes with whatever makes other states of the same tokens: weights, configuration, layout, pooling, code."""
    config = {k: v for k, v in backbone.classifier.config.to_dict().items() if k != "_name_or_path"}
    read = data.renderer.fingerprint if backbone.surface else ""  # surface features are of decoded tokens
    about = (fingerprint(Backbone, bare(data.layout)), backbone.pooling, read, json.dumps(config, sort_keys=True))
    digest = blake2b(repr(about).encode(), digest_size=8)
    for name, value in backbone.classifier.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
