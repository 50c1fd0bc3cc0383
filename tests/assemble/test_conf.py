"""Every option of every group composes with the defaults, and every target accepts the keys it is given."""

import inspect
from pathlib import Path

import hydra
import pytest
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

CONF = Path(__file__).parent.parent / "conf"
GROUPS = ("adapter", "algorithm", "aggregation", "data", "debug", "experiment", "head", "logger", "loss", "model",
          "optimizer", "scheduler", "shaping", "split", "task", "trainer")  # fmt: skip
OPTIONS = sorted(f"{p.parent.name}={p.stem}" for g in GROUPS for p in (CONF / g).glob("*.yaml"))
COLLECTING = {
    "sample": ("backend", "sampler", "pick", "filter", "data", "model"),
    "annotate": ("annotator", "data"),
    "evaluate": ("data", "split", "logger"),
}
ACTIVE_OPTIONS = sorted(
    f"{group}={p.stem}"
    for group in ("selector", "label_source", "features", "learner")
    for p in (CONF / group).glob("*.yaml")
)
ITERATE_OPTIONS = sorted(
    f"{group}={p.stem}"
    for group in ("policy", "reward_learner", "sampler", "selector", "features", "early_stopping")
    for p in (CONF / group).glob("*.yaml")
)
COLLECTING_OPTIONS = sorted(
    (command, f"{group}={p.stem}")
    for command, groups in COLLECTING.items()
    for group in groups
    for p in (CONF / group).glob("*.yaml")
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


@pytest.mark.parametrize(
    "plugin",
    ["hydra/sweeper=optuna", "hydra/launcher=joblib", "hydra/launcher=submitit_slurm", "hydra/launcher=ray"],
)
def test_sweepers_and_launchers_compose(plugin):
    if plugin.endswith("ray"):
        pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="pip install rlhf[ray]")
    cfg = compose(plugin, return_hydra_config=True)
    group = plugin.split("=")[0].removeprefix("hydra/")
    assert plugin.split("=")[1].split("_")[0] in cfg.hydra[group]._target_.lower()


def test_an_unknown_key_is_refused():
    with pytest.raises(hydra.errors.ConfigCompositionException, match="batch_sise"):
        compose("batch_sise=3")


def test_an_unknown_loss_is_refused():
    with pytest.raises(hydra.errors.MissingConfigException, match="lossy"):
        compose("loss=lossy")
