"""Every registered class has a case, and what a file needs of it: a description from which it is built again."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn

import pushforward
from pushforward import registry

from .cases import ALL, MODULES, Case, silently
from .tools import build, built, context_of, data_of

assert pushforward.io  # so that everything a file may name is registered


def test_every_registered_class_of_the_package_has_a_case():
    own = {name for name in registry.names() if registry.registered(name).__module__.startswith("pushforward.")}
    assert len(own) > 100
    missing = sorted(own - {case.name for case in ALL})
    assert not missing, f"add cases for {missing} to tests/contract/cases/"


def test_cases_build_the_class_that_they_name():
    for case in ALL:
        assert type(built(case)) is registry.registered(case.name), case


def outputs(module, case: Case) -> list[torch.Tensor]:
    if isinstance(module, pushforward.networks.MLP):
        return [module(torch.linspace(-2, 2, 15, dtype=torch.float64).reshape(5, 3))]
    if type(module).__name__.endswith("Summary"):
        return [module(torch.linspace(-2, 2, 5 * module.inputs, dtype=torch.float64).reshape(5, -1))]
    if isinstance(module, pushforward.networks.MADE):
        x = torch.linspace(-2, 2, 5 * module.features, dtype=torch.float64).reshape(5, -1)
        return [module(x, torch.ones(5, module.context, dtype=torch.float64))]
    if isinstance(module, pushforward.networks.ConvNet):
        return [module(torch.linspace(-2, 2, 2 * module.inputs * 12, dtype=torch.float64).reshape(2, -1, 3, 4))]
    x, context = data_of(case, module), context_of(module)
    if isinstance(module, pushforward.transforms.Transform):
        step = module.encode(x, context)
        return [step.z, step.contribution, module.decode(step.z, context)]
    if isinstance(module, pushforward.distributions.Distribution):
        return [module.log_prob(x, context)]
    return [module.evaluate(x, context).value, module.sample(3, context, seed=1)]


def rebuild(module):
    """Describe, write as JSON, read and build, as a file does."""
    description = json.loads(json.dumps(registry.describe(module), allow_nan=False))
    return silently(lambda: registry.build(description))()


def assert_bitwise(module, other, case: Case) -> None:
    for a, b in zip(outputs(module, case), outputs(other, case), strict=True):
        assert a.dtype is b.dtype
        assert torch.equal(a, b)


@pytest.mark.parametrize("case", ALL, ids=str)
def test_description_builds_it_again(case):
    thing = built(case)
    again = rebuild(thing)
    assert type(again) is type(thing)
    assert registry.describe(again) == registry.describe(thing)
    if isinstance(thing, nn.Module):
        assert repr(again) == repr(thing)


@pytest.mark.parametrize("case", MODULES, ids=str)
def test_weights_go_into_a_new_one_bitwise(case):
    module = built(case)
    torch.manual_seed(123)  # a new one must not depend on the global generator being where it was
    other = rebuild(module).double().eval()
    other.load_state_dict(module.state_dict())
    assert_bitwise(module, other, case)


@pytest.mark.parametrize("case", MODULES, ids=str)
def test_it_can_be_built_on_the_meta_device(case):
    module = built(case)
    with torch.device("meta"):
        other = rebuild(module)
    tensors = [*other.named_parameters(), *other.named_buffers(remove_duplicate=False)]
    assert all(tensor.is_meta for _, tensor in tensors), [name for name, tensor in tensors if not tensor.is_meta]
    assert {name for name, _ in tensors} == set(module.state_dict())  # every buffer is persistent
    other.load_state_dict(module.state_dict(), assign=True)
    assert_bitwise(module, other.eval(), case)


@pytest.mark.parametrize("case", MODULES, ids=str)
def test_deepcopy(case):
    module = build(case)
    other = copy.deepcopy(module)
    assert_bitwise(module, other, case)
    before = [value.clone() for value in outputs(other, case)]
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(a, b) for a, b in zip(before, outputs(other, case), strict=True))


@pytest.mark.parametrize("case", MODULES, ids=str)
def test_building_is_reproducible_under_a_seed(case):
    assert_bitwise(build(case), build(case), case)


@pytest.mark.parametrize("case", MODULES, ids=str)
def test_evaluating_does_not_draw_from_the_global_generator(case):
    """Scoring draws nothing from the global generator, so it cannot disturb a run that does."""
    module = built(case)
    state = torch.random.get_rng_state()
    if not hasattr(module, "sample"):
        outputs(module, case)
    elif isinstance(module, pushforward.distributions.Distribution):
        module.log_prob(data_of(case, module), context_of(module))
    else:
        module.evaluate(data_of(case, module), context_of(module))
        module.sample(2, context_of(module), seed=0)
    assert torch.equal(torch.random.get_rng_state(), state)
