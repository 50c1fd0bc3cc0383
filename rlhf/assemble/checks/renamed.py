"""Keys, groups and options that were once called otherwise: each old name answers with its new one."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from rlhf.records import RecordError

EVERYWHERE: Mapping[str, str] = {
    "speaker": "policy",
    "voter": "label_source",
    "teacher": "reward_learner",
    "early_warning": "early_stopping",
}
COMPONENTS: Mapping[str, str] = {
    "batches": "attributes eval_aggregation batch_tokens eval_batch_size min_prompt workers cache",
    "optimizer": "centring",
    "trainer": "monitor patience validate_every save_every compile threads",
}
"""Component -> keys that stood beside it."""
KEYS: Mapping[str, Mapping[str, str]] = {
    "train": {
        **EVERYWHERE,
        "task.voter": "task.label_source",
        "task.teach": "task.reward_learner",
        "task.speaker": "task.policy",
        "task.act": "task.run",
        "task.judged": "task.eval_prompts",
        "task.plan.judged": "task.plan.eval_prompts",
        "task.only_judged": "task.only_voted",
        "task.conditions.*.early_warning": "task.conditions.*.early_stopping",
        "features.embed.maker": "features.embed.model_source",
        "judged_by": "batches.eval_aggregation",
        **{key: f"{component}.{key}" for component, keys in COMPONENTS.items() for key in keys.split()},
    },
    "evaluate": {
        "judged_by": "eval_aggregation",
        "changed": "perturbed_records",
        "sections.headline": "sections.accuracy",
        "sections.parts": "sections.slices",
    },
}
"""Command -> old key -> new key; `*` is a name that users choose."""
OPTIONS: Mapping[str, str] = {"task=warnings": "early_stopping", "experiment=early_warning": "early_stopping"}
"""Old option -> its new name."""
OVERLAYS = (("reward_learner", "changes"), ("task", "worlds", "*"))
"""Where a configuration may hold changes of itself."""


def refuse_old_names(cfg: DictConfig, command: str) -> None:
    """Raise RecordError where a configuration, such as an experiment of one's own, uses old names."""
    plain = OmegaConf.to_container(cfg, resolve=False)
    if found := [f"{key} is called {new} now" for key in _keys(plain) if (new := current(command, key))]:
        raise RecordError("\n".join(found))


def renamed(command: str, overrides: Sequence[str]) -> Iterator[str]:
    """What to type instead of overrides with old names."""
    for override in overrides:
        key, equals, value = override.lstrip("+~").partition("=")
        group = key.rpartition("/")[2].partition("@")[0]
        prefix = override[: len(override) - len(override.lstrip("+~"))]
        new = current(command, group if group != key else key) or ""
        option = OPTIONS.get(f"{new or key}={value}") or OPTIONS.get(f"{key}={value}")
        if new:
            yield f"{group} is called {new} now: {prefix}{new}{equals}{option or value}"
        elif option:
            yield f"{override} is called {key}={option} now"


def current(command: str, key: str) -> str | None:
    """The new name of an old key, of what lies inside one, or of one in an overlay; None for others."""
    names = key.split(".")
    for overlay in OVERLAYS:
        if len(names) > len(overlay) and _same(overlay, names):
            new = current(command, ".".join(names[len(overlay) :]))
            return new and ".".join([*names[: len(overlay)], new])
    for old, new in KEYS.get(command, {}).items():
        if _same(old.split("."), names):
            chosen = (name for name, part in zip(names, old.split("."), strict=False) if part == "*")
            kept = [next(chosen) if part == "*" else part for part in new.split(".")]
            return ".".join([*kept, *names[len(old.split(".")) :]])
    return None


def _same(pattern: Sequence[str], names: Sequence[str]) -> bool:
    """Do the names begin with the pattern?"""
    return len(names) >= len(pattern) and all(p in ("*", n) for p, n in zip(pattern, names, strict=False))


def _keys(plain: Any, prefix: str = "") -> Iterator[str]:
    """The dotted keys, outermost first."""
    for key, value in plain.items() if isinstance(plain, dict) else ():
        yield f"{prefix}{key}"
        yield from _keys(value, f"{prefix}{key}.")
