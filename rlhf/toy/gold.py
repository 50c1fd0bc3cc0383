"""The gold reward of any text in the toy world: which qualities of `rlhf.toy.world.QUALITIES` it has.

Read from the text alone, so that it also holds for what a language model says. On the toy world's own answers it gives
back the qualities they were made of. What is not recognised counts as sentences that only add length.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from rlhf.records import Prompt
from rlhf.toy.texts import HEDGES, OFF_TOPIC, REFUSALS, THANKS, ToyTask
from rlhf.toy.world import ToyWorld, gold_reward


def read_qualities(task: ToyTask, text: str) -> dict[str, float]:
    """The qualities of an answer to a task.

    correct     the first of right answer, wrong answer and off-topic sentence that occurs is the right one (any
                refusal, where one is right); where none occurs, the first sentence is a wrong answer
    repetitive  a sentence occurs more than once
    verbose     sentences that are none of these, not thanks, and no repetition
    """
    hedge = next((h for h in HEDGES if text.startswith(h)), "")
    plain = text[len(hedge) :]
    plain = plain[:1].upper() + plain[1:]
    thanked = any(t.strip() in plain for t in THANKS)
    for thanks in THANKS:
        plain = plain.replace(thanks.strip(), "")
    right = REFUSALS if task.right in REFUSALS else (task.right,)
    cores = (*right, task.wrong, *OFF_TOPIC)
    places = {c: p for c in cores if (p := plain.find(c[:1].upper() + c[1:])) >= 0}
    first = re.split(r"(?<=[.!?])", plain.lstrip(), maxsplit=1)[0]
    said = min(places, key=lambda c: (places[c], -len(c))) if places else first
    times = plain.count(said) if said else 0
    sentences = re.split(r"(?<=[.!?])\s+", plain.replace(said, "") if said else plain)
    rest = [s for s in sentences if s.strip(" .!?,")]
    different = set(map(str.strip, rest))
    return {
        "correct": float(said in right),
        "polite": float(thanked),
        "hedged": float(bool(hedge)),
        "verbose": float(len(rest)),
        "repetitive": float(times > 1 or len(different) < len(rest)),
        "off_topic": float(said in OFF_TOPIC),
    }


@dataclass
class ToyGold:
    """Gold rewards of texts, by prompt of the world."""

    world: ToyWorld
    _known: dict[Prompt, tuple[ToyTask, str, bool]] = field(default_factory=dict, init=False, repr=False)

    def task(self, prompt: Prompt) -> tuple[ToyTask, str, bool]:
        """Task, domain and difficulty of a prompt. Raises KeyError for a prompt of another world."""
        if prompt not in self._known:
            self._known[prompt] = self.world.task(self.world.find(prompt))
        return self._known[prompt]

    def __call__(self, prompts: Sequence[Prompt], texts: Sequence[str]) -> list[float]:
        """One gold reward per text, in log-odds."""
        tasks = [self.task(p) for p in prompts]
        known = zip(tasks, texts, strict=True)
        return [gold_reward(read_qualities(t, x), domain) for (t, domain, _), x in known]
