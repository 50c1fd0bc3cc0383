"""A frozen trunk is asked once: states of all texts in the cache, on which heads train in seconds.

Published precedent: linear heads on frozen 8B models lead reward benchmarks. The states are scaled to unit spread
within prompts while the head trains, and the head starts at 0; at the end the scale is put into its weights.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from rlhf.data.batch import States
from rlhf.data.datamodule import PreferenceData
from rlhf.data.distinct import key_of
from rlhf.data.render import Encoded
from rlhf.data.store import Rows
from rlhf.data.token_layout import Ids, bare
from rlhf.models.reward_model import RewardModel
from rlhf.reward.scoring.engine import ScoringEngine, forward

WRITTEN_TOGETHER = 1000  # states of one write


class CachedStates:
    """A token layout that looks states up instead of laying tokens.

    Args:
        file: written by `write_states`.
    """

    def __init__(self, file: Path) -> None:
        with pa.memory_map(str(file)) as source:
            table = pa.ipc.open_stream(source).read_all()
        keys = table.column("key").to_numpy()
        self._order = np.argsort(keys)
        self._keys = keys[self._order]
        self._states = table.column("state")

    def __call__(self, prompts: Sequence[Ids], responses: Sequence[Sequence[Ids]]) -> States:
        """States [N, D] of the completions. Raises KeyError for one that was not there when the file was written."""
        wanted = [key_of(p, r) for p, answers in zip(prompts, responses, strict=True) for r in answers]
        return States(self.of(np.array(wanted, dtype=np.uint64)))

    def of(self, keys: NDArray[np.uint64]) -> Float[Tensor, "N D"]:
        """States of completions by key."""
        place = np.searchsorted(self._keys, keys).clip(max=len(self._keys) - 1)
        if not np.array_equal(self._keys[place], keys):
            raise KeyError("a completion has no state in the cache: its tokens are not those of the prepared data")
        found = self._states.take(pa.array(self._order[place])).combine_chunks()
        flat = found.flatten() if isinstance(found, pa.FixedSizeListArray) else found.chunk(0).flatten()
        return torch.from_numpy(flat.to_numpy().reshape(len(keys), -1).copy())


def cached_states(data: PreferenceData, model: RewardModel, folder: Path) -> CachedStates:
    """States of every completion of the prepared data: read from the cache, or computed and left there.

    Args:
        data: set up, with the layout that the trunk would read.
        model: its trunk is asked; the head is not.
        folder: the cache. The file's name is a fingerprint of trunk, layout, and the tokens of all completions.
    """
    keys = {key_of(prompt, r) for rows in data.rows.values() for prompt, answers in rows.texts() for r in answers}
    file = folder / f"states-{_fingerprint(keys, data, model)}.arrow"
    if not file.exists():
        engine = ScoringEngine(
            model, pad_id=int(data.renderer.tokenizer.pad_token_id or 0), max_length=data.renderer.max_length,
            layout=lambda *_, **__: getattr(data.layout, "inner", data.layout),
        )  # fmt: skip
        write_states(file, engine, data.rows.values())
    return CachedStates(file)


def write_states(file: Path, engine: ScoringEngine, splits: Iterable[Rows]) -> None:
    """Write the state of every distinct completion of the splits; the file appears whole or not at all."""
    schema = pa.schema({"key": pa.uint64(), "state": pa.list_(pa.float32(), engine.model.backbone.hidden_size)})
    groups: list[list[int]] = []

    def fresh() -> Iterator[Encoded]:
        seen: set[int] = set()
        for prompt, answers in chain.from_iterable(rows.texts() for rows in splits):
            new = {key: r for r in answers if (key := key_of(prompt, r)) not in seen}
            seen |= new.keys()
            if new:
                groups.append(list(new))
                yield Encoded(prompt, list(new.values()), list(range(len(new))), 0, 0)

    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished, name = tempfile.mkstemp(prefix=file.stem, dir=file.parent)
    try:
        with os.fdopen(unfinished, "wb") as raw, pa.ipc.new_stream(raw, schema) as stream:
            keys: list[int] = []
            states: list[NDArray[np.float32]] = []
            for number, scores in enumerate(engine.score(fresh())):
                keys += groups[number]
                states.append(scores.states.numpy())
                if len(keys) >= WRITTEN_TOGETHER:
                    stream.write_batch(_batch(keys, states, schema))
                    keys, states = [], []
            if keys:
                stream.write_batch(_batch(keys, states, schema))
        os.replace(name, file)
    finally:
        Path(name).unlink(missing_ok=True)


def spread(model: RewardModel, data: PreferenceData) -> Float[Tensor, " D"]:
    """What states are divided by [D], so that those of a prompt spread by 1 in all.

    Their standard deviations within the prompts of the training rows, times √D: of the trunk's states and of the
    surface features each by themselves, so that a few features weigh as much as many dimensions.
    """
    backbone = model.backbone
    total, count = torch.zeros(backbone.hidden_size, dtype=torch.float64), 0
    for prompt, answers in data.rows["train"].texts():
        found = forward(model, data.layout([prompt], [answers])).states.double()
        total += (found - found.mean(0)).square().sum(0)
        count += len(found) - 1
    deviation = (total / max(count, 1)).sqrt().float()
    deviation = torch.where(deviation > 1e-6 * deviation.max(), deviation, 1)
    sizes = torch.tensor([backbone.state_size, backbone.hidden_size - backbone.state_size])
    return deviation * sizes.repeat_interleave(sizes).sqrt()


def _batch(keys: list[int], states: list[NDArray[np.float32]], schema: pa.Schema) -> pa.RecordBatch:
    flat = pa.array(np.concatenate(states).ravel(), pa.float32())
    column = pa.FixedSizeListArray.from_arrays(flat, schema.field("state").type.list_size)
    return pa.RecordBatch.from_arrays([pa.array(keys, pa.uint64()), column], schema=schema)


def _fingerprint(keys: set[int], data: PreferenceData, model: RewardModel) -> str:
    backbone = model.backbone
    digest = blake2b(np.sort(np.fromiter(keys, np.uint64, len(keys))).tobytes(), digest_size=8)
    for name, value in sorted(backbone.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    about = (bare(data.layout).__name__, backbone.pooling, backbone.surface is not None)
    digest.update(repr(about).encode())
    return digest.hexdigest()
