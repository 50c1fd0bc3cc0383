"""Every option of every group composes with the defaults, and every target accepts the keys it is given."""

import inspect

import hydra
import pytest
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from rlhf.assemble import CONF
from rlhf.assemble.checks.suggestions import _suggest
from rlhf.assemble.schema.options import option, option_names
from rlhf.records import RecordError

GROUPS = ("adapter", "aggregation", "data", "debug", "experiment", "head", "logger", "loss", "model",
          "optimizer", "scheduler", "split", "task", "trainer")  # fmt: skip
OPTIONS = sorted(f"{g}={name}" for g in GROUPS for name in option_names(g))
COLLECTING = {
    "sample": ("backend", "sampler", "pick", "filter", "data", "model"),
    "annotate": ("annotator", "data"),
    "evaluate": ("data", "split", "logger"),
}
ACTIVE_OPTIONS = sorted(
    f"{group}={name}" for group in ("selector", "label_source", "features", "learner") for name in option_names(group)
)
ITERATE_GROUPS = (
    "algorithm", "policy", "reward_learner", "sampler", "shaping", "selector", "features", "early_stopping"
)  # fmt: skip
ITERATE_OPTIONS = sorted(f"{group}={name}" for group in ITERATE_GROUPS for name in option_names(group))
COLLECTING_OPTIONS = sorted(
    (command, f"{group}={name}")
    for command, groups in COLLECTING.items()
    for group in groups
    for name in option_names(group)
)


def compose(*overrides: str, command: str = "train", **kwargs) -> DictConfig:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose(command, overrides=list(overrides), **kwargs)


def targets(node):
    if isinstance(node, DictConfig):
        if "_target_" in node:
            yield node
        for key in node:
            if not OmegaConf.is_missing(node, key):
                yield from targets(node._get_node(key))


def test_options_are_found():
    assert len(OPTIONS) >= 60
    assert {o.split("=")[0] for o in OPTIONS} == set(GROUPS)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_composes_and_binds(option):
    cfg = compose(option)
    found = list(targets(cfg))
    assert found
    for node in found:
        _bind(node)


@pytest.mark.parametrize(("command", "option"), COLLECTING_OPTIONS)
def test_every_option_of_collecting_composes_and_binds(command, option):
    needed = {"evaluate": "run=x"}.get(command, "out=x")
    found = list(targets(compose(option, needed, command=command)))
    assert found
    for node in found:
        _bind(node)


@pytest.mark.parametrize("option", ACTIVE_OPTIONS)
def test_every_option_of_active_learning_composes_and_binds(option):
    found = list(targets(compose("task=active", option)))
    assert found
    for node in found:
        _bind(node)


@pytest.mark.parametrize("option", ITERATE_OPTIONS)
def test_every_option_of_iterated_rlhf_composes_and_binds(option):
    found = list(targets(compose("task=iterate", option)))
    assert found
    for node in found:
        _bind(node)


def _bind(node: DictConfig) -> None:
    signature = inspect.signature(get_object(node["_target_"]))
    given = {k for k in node if not str(k).startswith("_")}
    accepts_all = any(p.kind == p.VAR_KEYWORD for p in signature.parameters.values())
    unknown = given - set(signature.parameters)
    assert accepts_all or not unknown, f"{node['_target_']} does not know {unknown}"


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda p: str(p.relative_to(CONF)))
def test_every_config_says_what_it_is(path):
    if path.parent.name == "hydra" or path.name == "train.yaml":
        return
    text = path.read_text()
    assert text.startswith("#"), "the first line says what the option is"


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda p: str(p.relative_to(CONF)))
def test_no_line_is_too_long_to_read(path):
    assert max(map(len, path.read_text().splitlines())) <= 160


def test_bases_are_inherited_from_and_never_offered():
    bases = sorted(CONF.glob("*/base/*.yaml"))
    assert len(bases) >= 5
    for path in bases:
        group = path.parents[1]
        assert any(f"base/{path.stem}@" in p.read_text() for p in group.glob("*.yaml")), path
        assert f"base/{path.stem}" not in option_names(group.name)
        (said,) = _suggest("train", [f"{group.name}=xyzzy"])
        assert "base" not in said
        with pytest.raises(hydra.errors.MissingConfigException) as refused:
            compose(f"+{group.name}=xyzzy")
        assert "base" not in str(refused.value).split("Config search path")[0]


@pytest.mark.parametrize(
    ("group", "name"), [("shaping", "conservative"), ("early_stopping", "report"), ("votes", "one")]
)
def test_an_option_alone_is_what_it_is_in_a_whole_configuration(group, name):
    whole = compose("task=active" if group == "votes" else "task=iterate", f"{group}={name}")
    alone = option(group, name)
    assert alone == OmegaConf.to_container(whole[group])
    alone.merge_with({"new": 1})
    assert "new" not in option(group, name)


def test_an_option_that_is_none_is_refused_with_those_there_are():
    with pytest.raises(RecordError, match=r"votes has no option 'seven': one of five, one, open, two_then_more"):
        option("votes", "seven")


@pytest.mark.parametrize(
    "plugin", ["hydra/sweeper=optuna", "hydra/launcher=joblib", "hydra/launcher=submitit_slurm", "hydra/launcher=ray"]
)
def test_sweepers_and_launchers_compose(plugin):
    if plugin.endswith("ray"):
        pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="pip install preference-reward-models[ray]")
    cfg = compose(plugin, return_hydra_config=True)
    group = plugin.split("=")[0].removeprefix("hydra/")
    assert plugin.split("=")[1].split("_")[0] in cfg.hydra[group]._target_.lower()


def test_an_unknown_key_is_refused():
    with pytest.raises(hydra.errors.ConfigCompositionException, match="batch_sise"):
        compose("batch_sise=3")


def test_an_unknown_loss_is_refused():
    with pytest.raises(hydra.errors.MissingConfigException, match="lossy"):
        compose("loss=lossy")
