"""A run goes on with the state of its controller; everything else of it is configuration, and that counts."""

import re
import warnings
from functools import partial

import pytest
import torch

from rlhf.optimise.policy.module import PolicyModule
from rlhf.optimise.policy.ppo_module import PpoModule
from rlhf.optimise.shaping.ensemble import mean
from rlhf.optimise.shaping.kl_controllers import (
    Adaptive,
    Annealed,
    Context,
    Fixed,
    PerDomain,
    PerPrompt,
    controller_state_of,
    cosine,
    linear,
    load_controller,
    name_of,
)
from rlhf.optimise.shaping.shaper import Shaper

TWO = Context(torch.tensor([0.2, 0.5]), ["safety", None])
ADAPTIVE = {"init": 0.1, "target": 6.0, "horizon": 1000}
ANNEALED = {"start": 1.0, "end": 0.1, "episodes": 500}


def after_updates(controller):
    for kl in (3.0, 9.0, 20.0):
        controller.update(kl, 64)
    return controller


def betas(controller):
    return controller.betas(TWO).tolist()


def silently(controller, saved):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_controller(controller, saved)
    return controller


def test_a_fixed_beta_is_that_of_the_configuration():
    assert betas(silently(Fixed(0.7), controller_state_of(after_updates(Fixed(0.1))))) == betas(Fixed(0.7))
    assert betas(silently(Fixed(0.7), {"beta": 0.1})) == betas(Fixed(0.7))  # as earlier versions wrote it


@pytest.mark.parametrize("change", [{"init": 0.2}, {"target": 8.0}, {"horizon": 2000}])
@pytest.mark.parametrize("inside", [lambda c: c, PerPrompt, lambda c: PerDomain(PerPrompt(c), {"safety": 2.0})])
def test_an_adapted_beta_is_kept_for_the_settings_it_was_adapted_to(change, inside):
    old = after_updates(inside(Adaptive(**ADAPTIVE)))
    assert betas(silently(inside(Adaptive(**ADAPTIVE)), controller_state_of(old))) == betas(old)
    new = inside(Adaptive(**ADAPTIVE | change))
    ((name, value),) = change.items()
    with pytest.warns(UserWarning, match=rf"^shaping\.controller: {name}={value} \(was .*\): β starts from init="):
        load_controller(new, controller_state_of(old))
    assert betas(new) == betas(inside(Adaptive(**ADAPTIVE | change))) != betas(old)


def test_an_adapted_beta_keeps_to_new_bounds():
    new = silently(Adaptive(**ADAPTIVE, high=0.1), controller_state_of(after_updates(Adaptive(**ADAPTIVE))))
    assert new.beta == 0.1


@pytest.mark.parametrize("change", [{"start": 0.5}, {"end": 0.0}, {"episodes": 1000}, {"curve": cosine}])
def test_annealing_goes_on_where_it_was_under_its_new_settings(change):
    old = after_updates(Annealed(**ANNEALED))
    same = Annealed(**ANNEALED, curve=partial(linear))  # as Hydra makes it
    assert betas(silently(same, controller_state_of(old))) == betas(old)
    new, wanted = Annealed(**ANNEALED | change), after_updates(Annealed(**ANNEALED | change))
    with pytest.warns(UserWarning, match=rf"^shaping\.controller: {next(iter(change))}=.*after 192 episodes β goes on"):
        load_controller(new, controller_state_of(old))
    assert betas(new) == betas(wanted) != betas(old)


@pytest.mark.parametrize(
    ("make", "other"),
    [
        (lambda: Annealed(**ANNEALED), lambda: Fixed(0.3)),
        (lambda: Fixed(0.3), lambda: Adaptive(**ADAPTIVE)),
        (lambda: Adaptive(**ADAPTIVE), lambda: Fixed(0.3)),
        (lambda: Adaptive(**ADAPTIVE), lambda: Annealed(**ANNEALED)),
        (lambda: Adaptive(**ADAPTIVE), lambda: PerPrompt(Adaptive(**ADAPTIVE))),
        (lambda: PerPrompt(Adaptive(**ADAPTIVE)), lambda: PerDomain(Adaptive(**ADAPTIVE), {"safety": 2.0})),
        (lambda: PerDomain(Annealed(**ANNEALED), {}), lambda: PerDomain(Fixed(0.1), {})),
    ],
)  # fmt: skip
def test_another_controller_starts_from_its_configuration(make, other):
    controller, saved = make(), controller_state_of(after_updates(other()))
    said = f"the checkpoint is of {name_of(other())}: {name_of(make())} starts from its configuration"
    with pytest.warns(UserWarning, match=f"^shaping.controller: {re.escape(said)}$"):
        load_controller(controller, saved)
    assert betas(controller) == betas(make())


def test_a_wrapper_is_named_with_what_is_inside():
    assert controller_state_of(PerDomain(PerPrompt(Fixed(0.1)), {})) == {"of": "PerDomain(PerPrompt(Fixed))"}


def test_states_of_earlier_versions_are_taken_where_they_can_be():
    adaptive, annealed = PerPrompt(Adaptive(**ADAPTIVE)), Annealed(**ANNEALED)
    for controller, state in ((adaptive, {"beta": 0.25}), (annealed, {"seen": 250})):
        with pytest.warns(UserWarning, match="does not say of which controller its .*=.* goes on with it"):
            load_controller(controller, state)
    assert adaptive.controller.beta == 0.25
    assert annealed.beta == pytest.approx(0.55)
    for controller, state in ((Adaptive(**ADAPTIVE), {"seen": 250}), (Annealed(**ANNEALED), {"beta": 0.25})):
        before = betas(controller)
        with pytest.warns(UserWarning, match=r"is of another controller: .* starts from its configuration"):
            load_controller(controller, state)
        assert betas(controller) == before


@pytest.mark.parametrize("kind", [PolicyModule, PpoModule])
def test_a_module_goes_on_with_another_controller(kind):
    from rlhf.reward.schedule import constant
    from rlhf.toy.gold import ToyGold
    from rlhf.toy.tabular_policy import TabularPolicy
    from rlhf.toy.world import ToyWorld

    def module(controller):
        return kind(
            TabularPolicy(ToyGold(ToyWorld(size=40))),
            None,
            Shaper(controller, mean),
            completions=2,
            early_stopping=None,
            optimizer=torch.optim.Adam,
            schedule=constant,
        )

    old = module(Fixed(0.1))
    saved = {"state_dict": old.state_dict(), "loops": {"fit_loop": {"state_dict": {}}}}
    old.on_save_checkpoint(saved)
    new = module(Annealed(**ANNEALED))
    with pytest.warns(UserWarning, match="the checkpoint is of Fixed: Annealed starts"):
        new.on_load_checkpoint(saved)
    assert new.shaper.controller.beta == 1.0
