"""The registry: names, descriptions that survive JSON, and refusal of hostile files."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from torch import nn
from torch.distributions import ExpTransform

from pushforward import distributions, models, registry, transforms
from pushforward.detection.scores.latent_norm import LatentNorm
from pushforward.errors import ConfigError, StorageError
from pushforward.registry import build, describe, names, register, registered
from pushforward.transforms.stochastic.discrete_likelihoods import BernoulliLikelihood


@pytest.fixture(autouse=True)
def _own_classes(monkeypatch):
    monkeypatch.setattr(registry, "_CLASSES", {})


@pytest.fixture
def leaf():
    @register("parts")
    class Leaf(nn.Module):
        def __init__(self, size: int, *, scale: float = 1.0, name: str | None = None, seed: int = 0) -> None:
            super().__init__()
            if size < 0:
                raise ConfigError("size must not be negative.")
            self.size, self.scale, self.name, self.seed = size, scale, name, seed

    return Leaf


@pytest.fixture
def tree(leaf):
    @register("parts")
    class Tree(nn.Module):
        def __init__(self, *parts: nn.Module, widths: tuple[int, ...] = (1, 2), first: nn.Module | None = None) -> None:
            super().__init__()
            self.parts, self.widths, self.first = nn.ModuleList(parts), widths, first

    return Tree


def test_names(leaf, tree):
    assert names() == ["parts.Leaf", "parts.Tree"]
    assert names("parts") == names()
    assert names("transforms") == []
    assert registered("parts.Leaf") is leaf


def test_registering_twice(leaf):
    assert register("parts")(leaf) is leaf
    with pytest.raises(ConfigError, match="two classes"):

        @register("parts")
        class Leaf:
            pass

    assert registered("parts.Leaf") is leaf


def test_description_is_plain(leaf, tree):
    thing = tree(leaf(3), leaf(4, scale=0.5), widths=(5,), first=leaf(1, name="one", seed=2**40))
    description = describe(thing)
    assert description == {
        "class": "parts.Tree",
        "arguments": {
            "parts": [
                {"class": "parts.Leaf", "arguments": {"size": 3, "scale": 1.0, "name": None, "seed": 0}},
                {"class": "parts.Leaf", "arguments": {"size": 4, "scale": 0.5, "name": None, "seed": 0}},
            ],
            "widths": [5],
            "first": {"class": "parts.Leaf", "arguments": {"size": 1, "scale": 1.0, "name": "one", "seed": 2**40}},
        },
    }
    again = build(json.loads(json.dumps(description)))
    assert describe(again) == description
    assert type(again) is tree
    assert again.widths == (5,)  # lists come back as the tuples that constructors take
    assert [part.size for part in again.parts] == [3, 4]


def test_an_unregistered_class_cannot_be_described(leaf, tree):
    with pytest.raises(ConfigError, match="is not registered"):
        describe(nn.Linear(1, 1))
    with pytest.raises(ConfigError, match=r"parts\.Tree\.parts is a Linear"):
        describe(tree(nn.Linear(1, 1)))


def test_a_subclass_is_not_its_parent(leaf):
    class Other(leaf):
        pass

    with pytest.raises(ConfigError, match="is not registered"):
        describe(Other(1))


@pytest.mark.parametrize("value", [{1, 2}, object(), b"bytes", 1j])
def test_values_that_a_file_cannot_store(tree, value):
    with pytest.raises(ConfigError, match="cannot store"):
        describe(tree(widths=value))


def good(**arguments):
    return {"class": "parts.Leaf", "arguments": {"size": 3, **arguments}}


@pytest.mark.parametrize(
    "description",
    [
        None,
        3,
        [],
        "parts.Leaf",
        {},
        {"class": "parts.Leaf"},
        {"arguments": {}},
        {**good(), "more": 1},
        {"class": "parts.Leaf", "arguments": None},
        {"class": "parts.Leaf", "arguments": [3]},
        {"class": "os.system", "arguments": {}},
        {"class": "torch.nn.Linear", "arguments": {"in_features": 1, "out_features": 1}},
        {"class": ["parts.Leaf"], "arguments": {}},
        {"class": None, "arguments": {}},
        {"class": "parts.Leaf" * 1000, "arguments": {}},
        {"class": "parts.Leaf", "arguments": {}},
        good(other=1),
        good(__class__=1),
        good(self=1),
        good(size=-1),
        good(size="3"),
        good(size=True),
        good(size=3.5),
        good(size=None),
        good(size=[3]),
        good(size=10**8),
        good(size=-(10**8)),
        good(scale="1"),
        good(scale=None),
        good(name=3),
        good(name={"class": "parts.Leaf", "arguments": {}}),
        {"class": "parts.Tree", "arguments": {"parts": 3}},
        {"class": "parts.Tree", "arguments": {"parts": {"class": "parts.Leaf", "arguments": {"size": 1}}}},
        {"class": "parts.Tree", "arguments": {"parts": [good(size=10**8)]}},
        {"class": "parts.Tree", "arguments": {"widths": [1, 10**8]}},
        {"class": "parts.Tree", "arguments": {"widths": [1] * 200_000}},
        {"class": "parts.Tree", "arguments": {"first": {"class": "os.system", "arguments": {}}}},
    ],
    ids=lambda value: str(value)[:60],
)
def test_hostile_descriptions_are_refused(leaf, tree, description):
    with pytest.raises(StorageError) as caught:
        build(description)
    assert len(str(caught.value)) < 600


def test_nesting_is_bounded(tree):
    description: dict = {"class": "parts.Tree", "arguments": {}}
    for _ in range(5):
        description = {"class": "parts.Tree", "arguments": {"first": description}}
    assert build(description).first is not None
    for _ in range(500):
        description = {"class": "parts.Tree", "arguments": {"first": description}}
    with pytest.raises(StorageError, match="nested"):
        build(description)


def test_the_bound_on_sizes_can_be_lowered(leaf):
    assert build(good(size=100), largest=100).size == 100
    with pytest.raises(StorageError, match="size of 101"):
        build(good(size=101), largest=100)


def test_seeds_and_floats_are_not_sizes(leaf):
    built = build(good(seed=2**60, scale=1e300), largest=100)
    assert built.seed == 2**60
    assert built.scale == 1e300


def test_an_integer_may_stand_for_a_float(leaf):
    assert build(good(scale=2)).scale == 2


def test_infinite_floats_survive(leaf):
    assert build(describe(leaf(1, scale=math.inf))).scale == math.inf


def test_names_import_nothing():
    with pytest.raises(StorageError, match="not one of pushforward's"):
        registered("pushforward.cli.main")


def test_numbers_of_numpy_become_plain_numbers(leaf):
    described = describe(leaf(np.int64(3), scale=np.float32(0.5)))
    assert described["arguments"] == {"size": 3, "scale": 0.5, "name": None, "seed": 0}
    assert type(described["arguments"]["size"]) is int
    assert type(described["arguments"]["scale"]) is float


@pytest.mark.parametrize("value", [True, 1, np.bool_(True), np.int64(1)])
def test_truth_values_become_plain(value):
    @register("parts")
    class Switch(nn.Module):
        def __init__(self, on: bool = False) -> None:
            super().__init__()
            self.on = on

    described = json.loads(json.dumps(describe(Switch(value))))
    assert described["arguments"]["on"] is True
    assert build(described).on is True


@pytest.mark.parametrize(
    ("base", "package"),
    [
        (transforms.Affine, "transforms"),
        (distributions.Normal, "distributions"),
        (models.RealNVP, "models"),
        (transforms.AffineTransformer, "transformers"),
        (BernoulliLikelihood, "likelihoods"),
        (LatentNorm, "scores"),
        (nn.Linear, "networks"),
    ],
)
def test_the_error_names_the_package_of_the_class(tree, base, package):
    thing = object.__new__(type("Own", (base,), {}))
    message = rf"is not registered, .* decorate it with @pushforward.registry.register\('{package}'\)"
    with pytest.raises(ConfigError, match=message):
        describe(thing)
    outer = tree()
    outer.first = None
    outer.widths = thing  # as an argument of another
    with pytest.raises(ConfigError, match="parts.Tree.widths is a Own, .*" + message):
        describe(outer)


def test_a_network_of_the_users_own(tree):
    """Neither an unregistered class nor an argument that it does not keep is an error without advice."""

    class Net(nn.Module):
        def __init__(self, inputs: int) -> None:
            super().__init__()

    thing = tree(first=Net(2))
    with pytest.raises(
        ConfigError, match=r"parts.Tree.first is a Net, .* decorate it with @pushforward.registry.register"
    ):
        describe(thing)
    register("networks")(Net)
    with pytest.raises(
        ConfigError, match=r"networks.Net does not keep the argument inputs .* set self.inputs = inputs there"
    ):
        describe(thing)
    thing.first.inputs = 2
    assert describe(thing)["arguments"]["first"] == {"class": "networks.Net", "arguments": {"inputs": 2}}


def test_a_class_that_wraps_objects_of_others_cannot_be_described():
    wrapped = transforms.from_torch(ExpTransform(), 2)
    with pytest.raises(
        ConfigError, match=r"TorchTransform is not registered, .* write a registered class that does the same"
    ):
        describe(wrapped)
