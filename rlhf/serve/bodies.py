"""What a request may say. Anything else is refused with the field, the problem and the remedy, never with the text."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator

from rlhf.records import Prompt, RecordError, parse_prompt

ROLES = ("system", "developer", "user", "assistant", "tool")
"""Whose turns a chat may hold."""
EMPTY = "is empty or nothing but white space"


class Turn(BaseModel):
    """One turn of a chat, for the description in `/openapi.json`."""

    role: str
    content: str


def _readable(text: str) -> str:
    """The text itself. Raises RecordError for half a surrogate pair, which JSON can spell and no tokenizer reads."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RecordError(
            f"half a surrogate pair at character {error.start} is no text", remedy="send both halves, or neither"
        ) from error
    return text


def _prompt(raw: Any) -> Prompt:
    for i, turn in enumerate(raw if isinstance(raw, list) else ()):
        try:
            parse_prompt([turn])
        except RecordError as error:
            key = "" if error.key == "message" else f".{error.key}"
            raise RecordError(error.problem, key=f"{i}{key}", remedy=error.remedy) from error
    prompt = parse_prompt(raw)
    if isinstance(prompt, str):
        if not prompt.strip():
            raise RecordError(EMPTY, remedy="the text that the completions answer")
        return _readable(prompt)
    for i, turn in enumerate(prompt):
        try:
            _readable(turn["content"])
        except RecordError as error:
            raise RecordError(error.problem, key=f"{i}.content", remedy=error.remedy) from error
        if turn["role"] not in ROLES:
            raise RecordError("unknown role", key=f"{i}.role", remedy=f"one of {', '.join(ROLES)}")
        if turn["role"] == "user" and not turn["content"].strip():
            raise RecordError(EMPTY, key=f"{i}.content", remedy="the text of the user's turn")
    if prompt[-1]["role"] == "assistant":
        raise RecordError("ends with the assistant's turn", remedy="the answer to score goes into completions")
    return prompt


PromptField = Annotated[Any, PlainValidator(_prompt, json_schema_input_type=str | list[Turn])]
"""Plain text, or the turns of a chat so far."""
Text = Annotated[str, AfterValidator(_readable)]


class Body(BaseModel):
    """Unknown keys are refused: a mistyped one would be lost in silence."""

    model_config = ConfigDict(extra="forbid", strict=True)


class GroupBody(Body):
    """One prompt and the answers to score."""

    prompt: PromptField
    completions: list[Text] = Field(min_length=1)


class BatchBody(Body):
    """Several prompts, each with its answers."""

    groups: list[GroupBody] = Field(min_length=1)


class PairBody(Body):
    """One prompt and two answers."""

    prompt: PromptField
    a: Text
    b: Text


class RenderedBody(BaseModel):
    """What OpenRLHF sends to `--reward.remote_url`: whole texts that went through the policy's chat template."""

    model_config = ConfigDict(extra="ignore", strict=True)

    query: list[Text] = Field(min_length=1)
    prompts: list[Text] | None = None
    labels: list[Any] | None = None


class Refused(Exception):
    """A request that is not served.

    Args:
        status: of the HTTP answer, 4xx or 503.
        field: where in the request; empty = the request as a whole.
        problem: what is wrong.
        remedy: what to do.
    """

    def __init__(self, status: int, field: str, problem: str, remedy: str = "") -> None:
        super().__init__(problem)
        self.status, self.field, self.problem, self.remedy = status, field, problem, remedy

    def body(self) -> dict[str, str]:
        """The JSON of the answer."""
        said = ": ".join(p for p in (self.field, self.problem) if p)
        said += f" ({self.remedy})" if self.remedy else ""
        return {"error": said, "field": self.field, "problem": self.problem, "remedy": self.remedy}


SAID = {
    "missing": ("is missing", "add it"),
    "string_type": ("must be a string", "quote it"),
    "list_type": ("must be a list", "in [ ]"),
    "too_short": ("is empty", "at least one"),
    "model_attributes_type": (
        "the body is not a JSON object", "one in { }, with the header Content-Type: application/json",
    ),
}  # fmt: skip
"""Problem and remedy by pydantic's type of error."""


def refusal(errors: Sequence[Mapping[str, Any]], known: Sequence[str]) -> Refused:
    """The first of pydantic's errors as an answer; `known` are keys that exist."""
    first = min(errors, key=lambda e: e["type"] != "extra_forbidden")  # says more than what it leaves missing
    place = [p for p in first["loc"] if p != "body"]
    kind = str(first["type"])
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, RecordError):
        turn, _, own = ("", "", "") if cause.key == "prompt" else cause.key.partition(".")
        parts = [int(turn) if turn.isdigit() else turn, own]  # of `_prompt`: the number of a turn, and its key
        return Refused(422, _path([*place, *(p for p in parts if p != "")]), cause.problem, cause.remedy)
    if kind == "json_invalid":
        return Refused(422, "", f"the body is not JSON at position {place[-1]}", "one JSON object, in UTF-8")
    if kind == "extra_forbidden":
        close = get_close_matches(str(place[-1]), known, n=1)
        meant = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"
        return Refused(422, _path([*place[:-1], str(place[-1])[:40]]), "unknown key", meant)
    return Refused(422, _path(place), *SAID.get(kind, (str(first["msg"]), "")))


def unreadable_body(cause: BaseException | None) -> tuple[str, str]:
    """Problem and remedy of a body that could not be read, by what its reading raised."""
    if isinstance(cause, UnicodeDecodeError):
        return f"the body is not UTF-8 at byte {cause.start}", "one JSON object, in UTF-8"
    if isinstance(cause, RecursionError):
        return "the body is nested too deeply", "the bodies are described in /openapi.json"
    return "the body could not be read", "one JSON object, in UTF-8"


def _path(parts: Sequence[Any]) -> str:
    """`groups[0].completions[1]`."""
    joined = ""
    for part in parts:
        joined += f"[{part}]" if isinstance(part, int) else f".{part}" if joined else str(part)
    return joined
