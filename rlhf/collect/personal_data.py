"""Personal data that a model made up or remembered: patterns of what should not reach annotators."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rlhf.records import Prompt

Check = tuple[str, re.Pattern[str]]
BYTE = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
PII: tuple[Check, ...] = (
    ("e-mail address", re.compile(r"\b[\w.+-]+@[\w-]+(\.[\w-]+)+\b")),
    (
        "e-mail address",
        re.compile(
            r"\b[\w.+-]+ ?(?:\(at\)|\[at\]|\bat\b) ?[\w-]+ ?(?:\(dot\)|\[dot\]|\bdot\b) ?[a-z]{2,}\b", re.I
        ),
    ),
    (
        "IP address",
        re.compile(rf"(?<![Vv]ersion )(?<![Rr]elease )(?<!\b[Vv])(?<![\w.])(?:{BYTE}\.){{3}}{BYTE}(?!\w)"),
    ),
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
