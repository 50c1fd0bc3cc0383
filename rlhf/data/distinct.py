"""Every distinct text of a split once: what many records compare is scored once, and looked up.

Two completions are the same text when the tokens of their prompts and their own are equal. A prompt that was trimmed to
make room for a long sibling has other tokens, and so another score.
"""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlhf.data.store import Rows
from rlhf.data.token_layout import Ids
from rlhf.stats.arrays import Ints

MOST = 8  # completions of a piece: enough for the prompt to cost little, few enough for memory


def key_of(prompt: Ids, response: Ids) -> int:
    """64 bits that stand for the tokens of a prompt and a completion."""
    return keys_of(prompt, [response])[0]


def keys_of(prompt: Ids, responses: Iterable[Ids]) -> list[int]:
    """The same of several completions of a prompt."""
    head = blake2b(_bytes(prompt), digest_size=8)
    head.update(b"|")
    found = []
    for response in responses:
        digest = head.copy()
        digest.update(_bytes(response))
        found.append(int.from_bytes(digest.digest(), "little"))
    return found


def _bytes(tokens: Ids) -> memoryview:
    return tokens.data if isinstance(tokens, np.ndarray) else memoryview(array("i", tokens))


class DistinctTexts:
    """The distinct completions of some rows, in pieces of one prompt with `MOST` completions at most.

    `texts[[3, 1]]` gives columns `prompt`, `responses` and `number` of these pieces, for a loader. Memory holds numbers
    only.

    Args:
        rows: of a split.
    """

    def __init__(self, rows: Rows) -> None:
        self.table = rows
        number_of: dict[int, int] = {}
        open_piece: dict[int, int] = {}
        self._pieces: list[list[tuple[int, int]]] = []
        slots, self._lengths = array("q"), array("q")
        piece_of, place_of = array("q"), array("q")
        tokens: list[int] = []
        for row, (prompt, responses) in enumerate(rows.texts()):
            whose, *keys = keys_of(prompt, [(), *responses])
            for place, (key, response) in enumerate(zip(keys, responses, strict=True)):
                if key not in number_of:
                    number_of[key] = len(piece_of)
                    piece = open_piece.get(whose, -1)
                    if piece < 0 or len(self._pieces[piece]) == MOST:
                        piece = open_piece[whose] = len(self._pieces)
                        self._pieces.append([])
                        tokens.append(len(prompt))
                    piece_of.append(piece)
                    place_of.append(len(self._pieces[piece]))
                    self._pieces[piece].append((row, place))
                    tokens[piece] += len(response)
                slots.append(number_of[key])
            self._lengths.append(len(responses))
        self._slots = np.asarray(slots, dtype=np.int64)
        self._piece, self._place = np.asarray(piece_of, dtype=np.int64), np.asarray(place_of, dtype=np.int64)
        self.tokens: Ints = np.array(tokens, dtype=np.int64)
        """Of every piece, its prompt counted once."""

    def __len__(self) -> int:
        return len(self._pieces)

    @property
    def encodings(self) -> int:
        """Distinct completions."""
        return len(self._piece)

    @property
    def completions(self) -> int:
        """Completions of all rows."""
        return len(self._slots)

    def __getitem__(self, numbers: Sequence[int]) -> dict[str, Any]:
        wanted = [self._pieces[n] for n in numbers]
        rows = sorted({row for piece in wanted for row, _ in piece})
        columns = dict(zip(rows, self.table.texts_of(rows), strict=True))
        return {
            "prompt": [columns[piece[0][0]][0] for piece in wanted],
            "responses": [[columns[row][1][place] for row, place in piece] for piece in wanted],
            "number": list(numbers),
        }

    def of_rows(self, rewards: Mapping[int, NDArray[Any]]) -> dict[int, NDArray[Any]]:
        """Rewards of every row [K], looked up in those of the pieces [k]."""
        starts = np.cumsum([0, *(len(p) for p in self._pieces)])
        flat = np.concatenate([rewards[n] for n in range(len(self._pieces))]) if self._pieces else np.zeros(0)
        found = flat[starts[self._piece[self._slots]] + self._place[self._slots]]
        ends = np.cumsum(np.asarray(self._lengths, dtype=np.int64))
        return dict(enumerate(np.split(found, ends[:-1]))) if len(ends) else {}
