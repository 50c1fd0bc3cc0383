"""A mistake in the input is told in its own words, without the stack of the program."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hydra.errors import CompactHydraException

from rlhf.record_types import RecordError


class BadInput(CompactHydraException):
    """What was wrong with file, line, key, and the remedy; Hydra prints it alone unless HYDRA_FULL_ERROR=1."""


@contextmanager
def plain_errors() -> Iterator[None]:
    """Raise a RecordError, or that a file is not there, as BadInput; whatever else goes wrong keeps its stack."""
    try:
        yield
    except (RecordError, FileNotFoundError) as error:
        raise BadInput(f"\n{error}") from error
