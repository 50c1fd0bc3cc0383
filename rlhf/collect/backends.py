"""Who answers: policies from what the configuration names."""

from collections.abc import Sequence
from typing import Any

from rlhf.collect.endpoint import Endpoint, EndpointPolicy
from rlhf.collect.sampling import Policy


def auto(source: Any, *, path: str | None, **options: Any) -> list[Policy]:
    """The model by `transformers`; where none with weights is named, the source's own policy.

    Raises:
        ValueError: no weights named, and the prompts are not the toy world's.
    """
    if path is not None:
        return transformers(source, path=path, **options)
    if hasattr(source, "policies"):
        return toy(source)
    remedy = "model=local model.path=<folder>, or model=llama"
    raise ValueError(f"this model has no weights to sample from: {remedy}")


def transformers(source: Any, *, path: str, checkpoints: Sequence[str] = (), **options: Any) -> list[Policy]:
    """`TransformersPolicy` of a folder or hub id, or of several checkpoints instead."""
    from rlhf.collect.transformers_policy import TransformersPolicy  # torch only where it is needed

    return [TransformersPolicy(each, **options) for each in checkpoints or [path]]


def vllm(source: Any, *, path: str, checkpoints: Sequence[str] = (), **options: Any) -> list[Policy]:
    """`VllmPolicy` of a folder or hub id, or of several checkpoints instead."""
    from rlhf.collect.vllm_policy import VllmPolicy

    return [VllmPolicy(each, **options) for each in checkpoints or [path]]


def toy(source: Any, *, skills: Sequence[float] = (0.0,)) -> list[Policy]:
    """Policies of the toy world, one per skill. Raises ValueError where the prompts are not its own."""
    if not hasattr(source, "policies"):
        raise ValueError("backend=toy answers prompts of data=toy only")
    policies: list[Policy] = source.policies(skills)
    return policies


def endpoint(source: Any, *, max_new_tokens: int, stop: Sequence[str] = (), **options: Any) -> list[Policy]:
    """A policy behind an OpenAI-compatible endpoint."""
    return [EndpointPolicy(Endpoint(**options), max_new_tokens, stop)]
