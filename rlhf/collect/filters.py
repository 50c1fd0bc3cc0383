"""Automatic filters before anybody is asked: each says why a completion is dropped, or None. No torch.

A filter is a callable (prompt, text) -> reason or None. Reasons are short and countable; every drop is reported.
"""

import json
import re
import unicodedata
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Protocol

from rlhf.records import Prompt, RecordError


class Filter(Protocol):
    """One reason to drop a completion."""

    def __call__(self, prompt: Prompt, text: str) -> str | None:
        """Why the text is dropped, or None."""


def needs(package: str, name: str) -> None:
    """Raises RecordError where the package that the filter `name` asks is not installed."""
    if find_spec(package) is None:
        remedy = f"pip install 'preference-reward-models[filters]', or filter.filters.{name}=null to go without it"
        raise RecordError(f"needs the package {package}", key=f"filter.filters.{name}", remedy=remedy)


@dataclass(frozen=True)
class Length:
    """Characters and words of a completion; `empty` and `too short` and `too long` are told apart."""

    min_chars: int = 1
    max_chars: int = 20_000
    min_words: int = 1

    def __call__(self, prompt: Prompt, text: str) -> str | None:
        """See `Filter`."""
        if not text.strip():
            return "empty"
        if len(text) < self.min_chars or len(text.split()) < self.min_words:
            return "too short"
        return "too long" if len(text) > self.max_chars else None


@dataclass(frozen=True)
class Matches:
    """A regular expression that must (or must not) be found; `name` is the reason."""

    name: str
    pattern: str
    must: bool = True

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(
                f"filter {self.name}: pattern {self.pattern!r} is no regular expression: {error}"
            ) from error

    def __call__(self, prompt: Prompt, text: str) -> str | None:
        """See `Filter`."""
        return self.name if (re.search(self.pattern, text) is None) == self.must else None


@dataclass(frozen=True)
class EndsProperly:
    """The text ends in one of these, trailing white space aside: a cut answer does not."""

    endings: Sequence[str] = tuple(".!?\"')]}`…。！？:;*|")

    def __call__(self, prompt: Prompt, text: str) -> str | None:
        """See `Filter`."""
        return None if text.rstrip().endswith(tuple(self.endings)) else "no proper end"


@dataclass(frozen=True)
class JsonSchema:
    """The text must be JSON that fits a schema (draft 2020-12)."""

    schema: Mapping[str, Any]

    def __post_init__(self) -> None:
        needs("jsonschema", "json")

    def __call__(self, prompt: Prompt, text: str) -> str | None:
        """See `Filter`."""
        import jsonschema

        try:
            jsonschema.validate(json.loads(text), dict(self.schema))
        except json.JSONDecodeError:
            return "not JSON"
        except jsonschema.ValidationError:
            return "does not fit the schema"
        return None


@dataclass(frozen=True)
class Repetition:
    """Share of the n-grams of words that occurred before, and how well the text compresses.

    Args:
        n: words in an n-gram.
        max_share: more repeated n-grams than this are too many.
        min_words: shorter texts are not looked at.
        max_compression: texts of 200 bytes and more whose size over their zlib size is larger repeat themselves.
    """

    n: int = 3
    max_share: float = 0.4
    min_words: int = 12
    max_compression: float = 6.0

    def __call__(self, prompt: Prompt, text: str) -> str | None:
        """See `Filter`."""
        words = text.casefold().split()
        if len(words) >= self.min_words:
            grams = list(zip(*(words[i:] for i in range(self.n)), strict=False))
            if 1 - len(set(grams)) / len(grams) > self.max_share:
                return "repetitive"
        raw = text.encode("utf-8", "replace")
        too_simple = len(raw) >= 200 and len(raw) / len(zlib.compress(raw)) > self.max_compression
        return "repetitive" if too_simple else None


@dataclass(frozen=True)
class Charset:
    """At least a share of the letters belongs to the named scripts, and there are no control characters.

    Args:
        scripts: first words of Unicode letter names: LATIN, CYRILLIC, GREEK, ARABIC, CJK, HIRAGANA, ...
        min_share: least share of the letters.
    """

    scripts: Sequence[str] = ("LATIN",)
    min_share: float = 0.8

    def __call__(self, prompt: Prompt, text: str) -> str | None:
        """See `Filter`."""
        if any(unicodedata.category(c) == "Cc" and c not in "\n\r\t" for c in text) or "\ufffd" in text:
            return "control characters"
        letters = [c for c in text if c.isalpha()]
        own = sum(unicodedata.name(c, "").split(" ")[0] in self.scripts for c in letters)
        return "other script" if letters and own / len(letters) < self.min_share else None


@dataclass
class Language:
    """The text is in one of these languages (ISO 639-1), as py3langid's offline classifier sees it.

    Args:
        languages: e.g. [en, de].
        min_chars: shorter texts are not classified: a few words are guessed wrongly too often.
        min_probability: another language must be at least this probable to be a reason.
    """

    languages: Sequence[str]
    min_chars: int = 40
    min_probability: float = 0.8
    _identifier: Any = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        needs("py3langid", "language")

    def __call__(self, prompt: Prompt, text: str) -> str | None:
        """See `Filter`."""
        if len(text) < self.min_chars:
            return None
        if self._identifier is None:
            from py3langid.langid import MODEL_FILE, LanguageIdentifier

            self._identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        language, probability = self._identifier.classify(text)
        other = language not in self.languages and probability >= self.min_probability
        return f"language {language}" if other else None


UNWILLING = (
    r"(can ?not|can't|could ?not|couldn't|will not|won't|must (respectfully )?(decline|refuse)|(have|need) to decline|"
    r"decline to|refuse to|('d|would) rather not|"
    r"(am|'m) (not able|unable|not comfortable|not allowed|not going to)( to)?|"
    r"(do not|don't) (feel comfortable|have the ability))"
)
"""What somebody does who refuses; "I can't wait", "I couldn't agree more" and the like are left out below."""
ENTHUSIASM = r"(?! (wait|help but|believe|imagine|agree more|stress|emphasi[sz]e|thank|overstate|stop|lie)\b)"
OPENING = (
    r"^[^\w\"“]*((i('m| am) (very |so |really )?|we('re| are) )?sorry|(i|my) apolog\w*|unfortunately|regrettably)?"
    rf"[^\w\"“]*((but|however)\W+)?(i ?{UNWILLING}{ENTHUSIASM}|"
    rf"as an ai( language model| assistant| model|,? i ?{UNWILLING}),? ?(i\b)?)"
)
"""The text begins with a refusal."""
SOON = (
    rf"^[^\"“]{{0,120}}\b(i ?{UNWILLING} ?(be able to )?"
    r"(assist|comply|provide|help (you )?with|do (that|this|it)\b|do for you|(write|share) (that|this)|"
    r"discuss|fulfil|support|engage|answer (that|this)|generate|continue)|"
    r"(inappropriate|not appropriate|irresponsible|unethical) (for me )?to\b)"
)
"""A refusal of what was asked within the first 120 characters, outside quotation marks."""


@dataclass(frozen=True)
class Refusal:
    """The text refuses to answer. Refusals can be the right answer: use it where every prompt deserves one.

    Args:
        patterns: regular expressions, searched in the case-folded text; by default of English.
    """

    patterns: Sequence[str] = (OPENING, SOON)

    def __call__(self, prompt: Prompt, text: str) -> str | None:
        """See `Filter`."""
        plain = text.strip().casefold().replace("’", "'")
        return "refusal" if any(re.search(pattern, plain) for pattern in self.patterns) else None


BYTE = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
PII = (
    ("e-mail address", re.compile(r"\b[\w.+-]+@[\w-]+(\.[\w-]+)+\b")),
    (
        "e-mail address",
        re.compile(r"\b[\w.+-]+ ?(?:\(at\)|\[at\]|\bat\b) ?[\w-]+ ?(?:\(dot\)|\[dot\]|\bdot\b) ?[a-z]{2,}\b", re.I),
    ),
    ("IP address", re.compile(rf"(?<![Vv]ersion )(?<![Rr]elease )(?<!\b[Vv])(?<![\w.])(?:{BYTE}\.){{3}}{BYTE}(?!\w)")),
    ("social security number", re.compile(r"\b(?!000|666|9\d\d)\d{3}-(?!00)\d\d-(?!0000)\d{4}\b")),
    ("IBAN", re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b")),
    (
        "phone number",
        re.compile(
            r"(?<![\w.])(?:\+\d(?:[ .()/-]{0,2}\d){7,14}"  # with a country code
            r"|0\d{2,4}[ -]\d{3,4}[ -]\d{3,4}"  # with a trunk prefix
            r"|(?:\(\d{2,4}\)[ .-]?|\d{3}[ .-])\d{3}[ .-]?\d{3,4})\b"  # with an area code
        ),
    ),
)
CARD = re.compile(r"\b(?:\d[ -]?){13,19}\b")


@dataclass(frozen=True)
class PersonalData:
    """Patterns of personal data: e-mail, phone, card (Luhn), IBAN, social security number, IP address.

    What also stands in the prompt was not made up by the model and is no reason.
    """

    def __call__(self, prompt: Prompt, text: str) -> str | None:
        """See `Filter`."""
        given = prompt if isinstance(prompt, str) else " ".join(m["content"] for m in prompt)
        for name, pattern in PII:
            if any(m.group(0) not in given for m in pattern.finditer(text)):
                return f"personal data: {name}"
        cards = (m.group(0) for m in CARD.finditer(text))
        return "personal data: card number" if any(luhn(c) and c not in given for c in cards) else None


def luhn(number: str) -> bool:
    """The check digit of card numbers (ISO/IEC 7812)."""
    digits = [int(c) for c in number if c.isdigit()]
    doubled = [sum(divmod(2 * d, 10)) if i % 2 else d for i, d in enumerate(reversed(digits))]
    return len(digits) >= 13 and sum(doubled) % 10 == 0


@dataclass(frozen=True)
class Profanity:
    """Probability of profane words by alt-profanity-check's offline classifier. It knows words, not harm."""

    max_probability: float = 0.8

    def __post_init__(self) -> None:
        needs("profanity_check", "profanity")

    def __call__(self, prompt: Prompt, text: str) -> str | None:
        """See `Filter`."""
        from profanity_check import predict_prob

        return "profane" if float(predict_prob([text])[0]) > self.max_probability else None


@dataclass
class ModelScore:
    """A text classifier of a folder or the hub, e.g. a toxicity model: its label's probability is bounded.

    Args:
        path: folder or hub id of an AutoModelForSequenceClassification.
        label: whose probability counts.
        max_probability: more than this is a reason.
        name: the reason.
    """

    path: str
    label: str
    max_probability: float = 0.5
    name: str = "toxic"
    _pipeline: Any = field(default=None, init=False, repr=False)

    def __call__(self, prompt: Prompt, text: str) -> str | None:
        """Raises ValueError where the model has no such label."""
        if self._pipeline is None:
            from transformers import pipeline

            self._pipeline = pipeline("text-classification", model=self.path, top_k=None)
        scores = {s["label"]: s["score"] for s in self._pipeline([text], truncation=True)[0]}
        if self.label not in scores:
            raise ValueError(f"{self.path} has no label {self.label!r}: one of {', '.join(scores)}")
        return self.name if scores[self.label] > self.max_probability else None
