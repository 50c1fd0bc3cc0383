"""A mistake in the input is told in its own words, without the stack of the program."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hydra.errors import CompactHydraException, InstantiationException

from rlhf.records import RecordError


class BadInput(CompactHydraException):
    """What was wrong with file, line, key, and the remedy; Hydra prints it alone unless HYDRA_FULL_ERROR=1."""


@contextmanager
def plain_errors() -> Iterator[None]:
    """Raise a RecordError, or that a file is not there, as BadInput; whatever else goes wrong keeps its stack.

    One of something that the configuration names is told without Hydra's words around it.
    """
    try:
        yield
    except InstantiationException as error:
        if isinstance(error.__cause__, RecordError | FileNotFoundError):
            raise BadInput(f"\n{error.__cause__}") from error
        raise
    except (RecordError, FileNotFoundError) as error:
        raise BadInput(f"\n{error}") from error
