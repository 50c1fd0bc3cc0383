"""A mistyped folder is told apart from a name on the hub."""

import pytest

from rlhf.models.names import missing_folder, not_found
from rlhf.models.pretrained import Pretrained


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("runs/first-run/model", "runs/second-run", "models"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("runs/frist-run", "runs has no frist-run, did you mean first-run"),
        ("runs/first-run/modle", "first-run has no modle, did you mean model?"),
        ("./nope", "this folder has no nope"),
        ("../nope", "no such folder"),
        ("/nope/at/all", "no such folder (a hub name is"),
        ("nope/", "no such folder"),
        ("nope/a/b", "no such folder"),
        ("run/", "did you mean runs?"),
        ("my models/x", "no such folder"),
    ],
)
def test_what_can_only_be_a_folder_is_said_with_what_it_is_close_to(name, said):
    message = missing_folder(name, "run")
    assert message.startswith(f"run={name}: ")
    assert said in message


@pytest.mark.parametrize("name", ["runs", "runs/first-run", "./runs", "org/name", "gpt2", "org/name-1.5_b"])
def test_folders_and_names_that_may_be_on_the_hub_pass(name):
    assert missing_folder(name, "run") is None


def test_home_is_not_taken_for_a_name(here, monkeypatch):
    monkeypatch.setenv("HOME", str(here))
    assert str(here / "runs") in missing_folder("~/runs", "run")
    assert "no such folder" in missing_folder("~/none", "run")


def test_a_name_that_is_neither_here_nor_cached_says_both():
    message = not_found("org/name", "run")
    assert "no such folder here" in message
    assert "hf download org/name" in message
    with pytest.raises(FileNotFoundError, match="no such folder here, and no model of that name"):
        Pretrained(path="no-such-org/no-such-model").tokenizer()
    with pytest.raises(FileNotFoundError, match="runs has no frist"):
        Pretrained(path="runs/frist")
