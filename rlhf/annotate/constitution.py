"""A constitution: principles in YAML, one vote per principle, and critique-and-revise (Bai et al. 2022)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import yaml

from rlhf.annotate.ai_feedback import AiFeedback, Principle
from rlhf.annotate.judges import EndpointJudge
from rlhf.collect.decoding import Decoding
from rlhf.collect.endpoint import EndpointPolicy
from rlhf.collect.sampling import Policy
from rlhf.records import Comparison, Completion, Message, Prompt, RecordError, prompt_text

EXAMPLE = 'a name and a text per line: helpfulness: "Prefer the answer that ..."'
CRITIQUE = "[Prompt]\n{prompt}\n\n[Answer]\n{answer}\n\nSay in two sentences how the answer fails this rule: {rule}"
REVISE = (
    "[Prompt]\n{prompt}\n\n[Answer]\n{answer}\n\n[Criticism]\n{critique}\n\n"
    "Write the answer anew so that it follows this rule: {rule}\nReply with the new answer only."
)


def principles_from(path: str) -> list[Principle]:
    """The principles of a YAML file: a mapping of names to texts.

    Raises:
        RecordError: no such file, it is no YAML, or no such mapping.
    """
    file = Path(path)
    if not file.is_file():
        raise RecordError("no such file", place=path, key="annotator.constitution", remedy="check the path")
    try:
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = path if mark is None else f"{path}:{mark.line + 1}"
        problem = getattr(error, "problem", None) or "cannot be read"
        raise RecordError(f"is no YAML: {problem}", place=place, remedy=EXAMPLE) from error
    if not isinstance(raw, dict) or not raw or not all(isinstance(v, str) for v in raw.values()):
        raise RecordError("is no mapping of names to texts", place=path, remedy=EXAMPLE)
    return [Principle(str(name), text) for name, text in raw.items()]


@dataclass
class CritiqueAndRevise:
    """A new completion for the first ones of every record: criticised by one principle, then written anew.

    Args:
        writer: the policy that criticises and revises.
        principles: taken in turns, chosen by the prompt.
        number: completions to revise per record.
        seed: of the writer.
    """

    writer: Policy
    principles: Sequence[Principle]
    number: int = 1
    seed: int = 0

    def __call__(self, record: Comparison) -> Comparison:
        """The record with revised completions added, their critique and origin in `meta`."""
        new = [self._revised(record, c, n) for n, c in enumerate(record.completions[: self.number])]
        known = {c.text for c in record.completions}
        return replace(record, completions=record.completions + tuple(c for c in new if c.text not in known))

    def _revised(self, record: Comparison, completion: Completion, place: int) -> Completion:
        digest = sha256(f"{self.seed}:{record.prompt_id}:{place}".encode()).digest()
        seed = int.from_bytes(digest[:8], "little") >> 1
        rule = self.principles[seed % len(self.principles)]
        parts = {"prompt": prompt_text(record.prompt), "answer": completion.text, "rule": rule.text}
        critique = self._ask(CRITIQUE.format(**parts), seed)
        text = self._ask(REVISE.format(critique=critique, **parts), seed + 1)
        meta = {"revises": completion.id, "principle": rule.name, "critique": critique}
        source = {**self.writer.provenance, "seed": seed}
        return Completion(f"{completion.id}-revised", text, source, meta)

    def _ask(self, text: str, seed: int) -> str:
        prompt: Prompt = (Message(role="user", content=text),)
        return self.writer.answer(prompt, Decoding(temperature=0.7), [seed])[0].text


def constitutional(
    *, constitution: str, judges: Sequence[EndpointJudge], revise: int, tie: float, parallel: int, seed: int,
    **names: str,
) -> AiFeedback:  # fmt: skip
    """What `annotator=constitutional` builds: judges by principle, the first judge's endpoint revises.

    Args:
        constitution: the YAML file of principles.
        judges: vote once per principle.
        revise: completions per record to criticise and write anew; 0 = none.
        tie, parallel: as in `AiFeedback`.
        seed: of the revisions.
        names: model and address, which the judges already have.
    """
    principles = principles_from(constitution)
    writer = CritiqueAndRevise(EndpointPolicy(judges[0].endpoint), principles, revise, seed)
    return AiFeedback(judges, principles, tie, parallel, writer if revise else None)
