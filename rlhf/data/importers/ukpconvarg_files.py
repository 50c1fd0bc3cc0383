"""The data source of UKPConvArg1, which lies in two files."""

from __future__ import annotations

from functools import partial

from rlhf.data.importers.ukpconvarg import ukpconvarg
from rlhf.data.source import Source


def ukpconvarg_source(
    path: str | list[str] | None = None,
    responses_path: str | None = None,
    on_error: str = "raise",
    limit: int | None = None,
) -> Source:
    """The data source of a pairs file and a texts file; what `data=ukpconvarg` builds.

    Args:
        path: the pairs.
        responses_path: the texts of the arguments.
        on_error: `raise` or `skip`, as for every `Source`.
        limit: stop after this many pairs.

    Raises:
        RecordError: no path; on reading, a bad row under `on_error=raise`, or no texts.
    """
    importer = partial(ukpconvarg, responses_path=responses_path)
    return Source(importer, path=path, on_error=on_error, limit=limit)
