"""Old names of what has moved: stored configurations and users' own YAML still say what they meant.

Add a row where a name that users type, or that a run folder holds, changes. Weights have a table of their own in
`rlhf.reward.checkpoint`.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from rlhf.assemble.checks.renamed import KEYS, current

FOLDERS: Mapping[tuple[str, str], str] = {
    ("rlhf.annotate", "rlhf.labels"): "aggregation annotator_bradley_terry demonstrations",
    ("rlhf.assemble", "rlhf.assemble.tasks"): "active iterate policy tradeoff tuning",
    ("rlhf.judge", "rlhf.evaluation"): "benchmarks",
    ("rlhf.judge", "rlhf.evaluation.report"): "sections",
    ("rlhf.optimise", "rlhf.optimise.iterate"): "generation",
    ("rlhf.optimise", "rlhf.optimise.policy"): "oversight ppo_module",
    ("rlhf.optimise", "rlhf.optimise.shaping"): "rules shaper",
    ("rlhf.reward", "rlhf.models"): "heads layouts length_head pretrained",
    ("rlhf.select", "rlhf.select.strategies"): "diversity duels log_det uncertainty",
    ("rlhf.select", "rlhf.select.loop"): "fine_tuning learners mlp_head",
}
"""Old and new package of modules that kept their names."""
MODULES: Mapping[str, str] = {
    **{f"{old}.{name}": f"{new}.{name}" for (old, new), names in FOLDERS.items() for name in names.split()},
    "rlhf.annotate.annotator_models": "rlhf.labels.dawid_skene",
    "rlhf.annotate.files": "rlhf.annotate.exchange",
    "rlhf.annotate.judge_source": "rlhf.evaluation.llm_judge_source",
    "rlhf.assemble.ranges": "rlhf.assemble.checks.schema",
    "rlhf.assemble.studies": "rlhf.assemble.tasks.study",
    "rlhf.assemble.warnings": "rlhf.assemble.tasks.early_stopping",
    "rlhf.collect.personal_data": "rlhf.collect.filters",
    "rlhf.collect.scoring": "rlhf.collect.pick",
    "rlhf.data.importers.ukpconvarg_files": "rlhf.data.importers",
    "rlhf.judge.aggregators": "rlhf.stats.ensemble",
    "rlhf.judge.changes": "rlhf.evaluation.perturbations",
    "rlhf.judge.sections.biases": "rlhf.evaluation.report.sections.bias",
    "rlhf.judge.sections.calibrated": "rlhf.evaluation.report.sections.calibration",
    "rlhf.judge.sections.members": "rlhf.evaluation.report.sections.ensemble_members",
    "rlhf.judge.sections.strange": "rlhf.evaluation.report.sections.ood",
    "rlhf.optimise.controllers": "rlhf.optimise.shaping.kl_controllers",
    "rlhf.optimise.implicit_source": "rlhf.optimise.direct.implicit_reward",
    "rlhf.optimise.policy_training": "rlhf.optimise.policy.train",
    "rlhf.optimise.teaching": "rlhf.optimise.iterate.reward_learner",
    "rlhf.optimise.tuning": "rlhf.optimise.direct.train",
    "rlhf.optimise.uncertainty": "rlhf.optimise.shaping.ensemble",
    "rlhf.optimise.warning": "rlhf.optimise.policy.early_stopping",
    "rlhf.reward.adapter": "rlhf.models.lora",
    "rlhf.reward.toy_model": "rlhf.toy.tokenizer_model",
    "rlhf.select.choosing": "rlhf.select.strategies.selector",
    "rlhf.select.errors": "rlhf.select.strategies.error_focused",
    "rlhf.select.mixing": "rlhf.select.strategies.mixed",
    "rlhf.select.plan": "rlhf.select.loop.budget",
    "rlhf.select.voters": "rlhf.select.loop.label_sources",
}
"""Old module -> new module, for everything in it that kept its name; the longest that fits counts."""
TARGETS: Mapping[str, str] = {
    "pytorch_lightning.Trainer": "rlhf.assemble.tasks.reward.lightning_trainer",
    "rlhf.annotate.files.Page": "rlhf.annotate.offline_page.Page",
    "rlhf.assemble.Comparison": "rlhf.assemble.SweepTableCallback",
    "rlhf.assemble.active.bought_run": "rlhf.assemble.tasks.active.labelled_run",
    "rlhf.assemble.iterate.language": "rlhf.assemble.tasks.policy.LanguagePolicySource",
    "rlhf.assemble.iterate.rewarded_run": "rlhf.assemble.tasks.iterate.reward_learner_run",
    "rlhf.assemble.iterate.sound": "rlhf.assemble.tasks.iterate.check_iterate",
    "rlhf.assemble.iterate.toy": "rlhf.toy.source.TabularPolicySource",
    "rlhf.assemble.policy.named": "rlhf.assemble.tasks.policy.check_policy",
    "rlhf.assemble.policy.toy_gold": "rlhf.assemble.tasks.policy.gold_of",
    "rlhf.assemble.warnings.early": "rlhf.assemble.tasks.early_stopping.check_worlds",
    "rlhf.assemble.warnings.warnings": "rlhf.studies.early_stopping.run_early_stopping",
    "rlhf.assemble.warnings.warnings_run": "rlhf.assemble.tasks.early_stopping.early_stopping_run",
    "rlhf.assemble.studies.study": "rlhf.studies.study.run_study",
    "rlhf.assemble.tradeoff.tradeoff": "rlhf.studies.tradeoff.run_tradeoff",
    "rlhf.assemble.run.reward_run": "rlhf.assemble.tasks.reward.reward_run",
    "rlhf.data.toy.ToyWorld": "rlhf.toy.source.ToySource",
    "rlhf.judge.sections.accuracy.headline": "rlhf.evaluation.report.sections.accuracy.accuracy",
    "rlhf.judge.sections.accuracy.parts": "rlhf.evaluation.report.sections.accuracy.slices",
    "rlhf.optimise.generation.Plan": "rlhf.optimise.iterate.generation.IteratePlan",
    "rlhf.optimise.linear_judge.LinearJudge": "rlhf.toy.linear_reward.LinearReward",
    "rlhf.optimise.policy.PolicyModule": "rlhf.optimise.policy.module.PolicyModule",
    "rlhf.optimise.teaching.TrainedReward": "rlhf.optimise.iterate.reward_learner.RewardRunLearner",
    "rlhf.optimise.toy_speaker.ToySpeaker": "rlhf.toy.tabular_policy.TabularPolicy",
    "rlhf.optimise.warning.EarlyWarning": "rlhf.optimise.policy.early_stopping.StoppingRule",
    "rlhf.reward.doctor.examine": "rlhf.reward.doctor.doctor.examine",
    "rlhf.select.features.ToyQualities": "rlhf.toy.qualities.ToyQualities",
    "rlhf.select.learners.LinearHead": "rlhf.select.loop.learners.LinearLearner",
    "rlhf.select.loop.run_active": "rlhf.select.loop.run.run_active",
    "rlhf.select.mixing.Part": "rlhf.select.strategies.mixed.MixPart",
    "rlhf.select.mlp_head.MlpHead": "rlhf.select.loop.mlp_head.MlpLearner",
    "rlhf.select.plan.Plan": "rlhf.select.loop.budget.LabelBudget",
    "rlhf.studies.best_of_n.BestOfN": "rlhf.studies.best_of_n.BestOfNStudy",
}
"""Old target -> new target, where more than the module changed."""
OF_POLICIES = ("algorithm", "shaping", "reward")
"""Keys that every run once had, and that today belong to the tasks that optimise a policy."""

BEFORE: Mapping[str, Any] = {
    "merge": False, "max_group": 16, "batches": {"weighing": "pairs"}, "model": {"pooling": "stock", "surface": False},
}  # fmt: skip
"""What runs did that were made before there was the key."""
TOY_BEFORE = {"items": 24, "off_topic": 3}
"""The same, for data of the toy world."""


def new_target(target: str) -> str:
    """Where an old dotted target lies today; any other as it is."""
    if target in TARGETS:
        return TARGETS[target]
    module, _, rest = target.rpartition(".")
    while module:
        if module in MODULES:
            return f"{MODULES[module]}.{rest}"
        module, _, last = module.rpartition(".")
        rest = f"{last}.{rest}"
    return target


def translated(cfg: DictConfig) -> DictConfig:
    """The configuration with today's targets; the same object where it has no old one."""
    return _made(cfg, _with_new_names(OmegaConf.to_container(cfg, resolve=False)))


def stored_config(path: Path) -> DictConfig:
    """The configuration in the folder of a run of `train.py`, with today's keys and targets."""
    cfg = OmegaConf.load(path)
    plain = _with_new_names(OmegaConf.to_container(cfg, resolve=False), keys=True)
    for old, new in KEYS["train"].items():
        _move(plain, old.split("."), new.split("."))
    unused = ["reward"] if plain.get("reward", "") is None else []
    if "batch_size" in plain:  # a whole configuration
        plain = OmegaConf.to_container(OmegaConf.merge(BEFORE, plain))
    data = plain.get("data")
    if isinstance(data, dict) and "ToySource" in str(data.get("_target_")):
        plain["data"] = TOY_BEFORE | data
    for key in unused if "early_stopping" in plain else OF_POLICIES:
        plain.pop(key, None)
    return _made(cfg, plain)


def _made(cfg: Any, plain: Any) -> DictConfig:
    if plain == OmegaConf.to_container(cfg, resolve=False):
        return cfg  # type: ignore[no-any-return]
    made: DictConfig = OmegaConf.create(plain)
    OmegaConf.set_struct(made, OmegaConf.is_struct(cfg))
    return made


def _with_new_names(value: Any, *, keys: bool = False) -> Any:
    """A copy with today's targets and, where asked, today's keys in interpolations."""
    if isinstance(value, dict):
        found = {key: _with_new_names(inner, keys=keys) for key, inner in value.items()}
        if isinstance(target := found.get("_target_"), str):
            found["_target_"] = new_target(target)
            if found["_target_"] != target and found["_target_"].endswith("PolicySource"):
                found.pop("_partial_", None)  # what gives a policy is an object today, not a function
        return found
    if isinstance(value, list):
        return [_with_new_names(inner, keys=keys) for inner in value]
    return re.sub(r"\$\{.*\}", _interpolation, value) if keys and isinstance(value, str) else value


def _interpolation(found: re.Match[str]) -> str:
    return re.sub(r"(?<=[{:,])[a-z_]\w*(\.\w+)*", lambda key: current("train", key[0]) or key[0], found[0])


def _move(plain: Any, old: Sequence[str], new: Sequence[str]) -> None:
    """Put what lies under one path, if anything does, under another: merged, unless it is built by something else."""
    if "*" in old:
        at = old.index("*")
        holder = _under(plain, old[:at])
        for inner in holder.values() if isinstance(holder, dict) else ():
            _move(inner, old[at + 1 :], new[at + 1 :])
        return
    holder = _under(plain, old[:-1])
    if not isinstance(holder, dict) or old[-1] not in holder:
        return
    value = holder.pop(old[-1])
    for key in new[:-1]:
        plain = plain.setdefault(key, {})
    there = plain.get(new[-1])
    if isinstance(there, dict) and isinstance(value, dict):
        same = value.get("_target_", there.get("_target_")) == there.get("_target_")
        value = OmegaConf.to_container(OmegaConf.merge(there, value)) if same else value
    plain[new[-1]] = value


def _under(plain: Any, path: Sequence[str]) -> Any:
    """What lies under a path; None where there is nothing."""
    for key in path:
        plain = plain.get(key) if isinstance(plain, dict) else None
    return plain
