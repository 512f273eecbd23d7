"""The options of a run: one list of fields, of checks and of descriptions."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import re
from typing import get_type_hints

import numpy as np
import pytest
import torch

import pushforward as pf
from pushforward.errors import ConfigError
from pushforward.training import TrainingConfig, TrainingOptions, bayes, fit, fit_members, fit_two_step
from pushforward.training.config import changed_fields, make_config

from .tiny import equal, gaussian, rows, silent, weights

FIELDS = [field.name for field in dataclasses.fields(TrainingConfig)]
TRAINERS = [fit, fit_members, fit_two_step, bayes.swag, bayes.sghmc, bayes.bayes_by_backprop, bayes.deep_ensemble]


def test_the_keywords_that_editors_show_are_the_fields_with_their_types():
    assert get_type_hints(TrainingOptions) == get_type_hints(TrainingConfig)
    assert list(TrainingOptions.__annotations__) == FIELDS


@pytest.mark.parametrize("function", TRAINERS, ids=lambda function: function.__name__)
def test_signatures_and_docstrings_show_every_option(function):
    parameters = inspect.signature(function).parameters
    assert [name for name in parameters if name in FIELDS] == FIELDS
    assert "options" not in parameters
    arguments = function.__doc__.partition("Args:\n")[2].partition("\n\n")[0]
    assert re.findall(r"(?m)^    (\w+): ", arguments)[-len(FIELDS) :] == FIELDS
    for field in dataclasses.fields(TrainingConfig):
        assert parameters[field.name].default == field.default


GOOD = {
    "batch_size": [None, 1, 512],
    "epochs": [None, 0, 2.5],
    "max_steps": [None, 0, 10],
    "max_time": [None, 0, 12.5, "1h30m"],
    "optimizer": ["adam", "sgd", functools.partial(torch.optim.RMSprop, lr=1e-3)],
    "learning_rate": [1, 1e-3],
    "weight_decay": [0, 0.1],
    "schedule": [None, "cosine", math.cos],
    "gradient_clip": [None, 1],
    "ema": [None, 0.5],
    "patience": [None, 1],
    "evaluate_every": [None, 1],
    "seed": [-1, 0, 1 << 70],
    "device": [None, "cpu", "cuda:1", torch.device("cpu")],
    "amp": [True],
    "microbatches": [None, 1],
    "compile": [True],
    "initialize": [False],
    "checkpoint": [None, "a/b"],
    "checkpoint_every": [1, "5m"],
    "resume": [True, False, "auto"],
    "progress": ["auto", "rich", "plain", "silent"],
    "callback": [None, print],
    "log": [None, "a/b"],
    "distributed": [True, False],
}
BAD = {
    "batch_size": [0, -1, 2.5, True, "64"],
    "epochs": [-1, math.nan, math.inf, True, "3"],
    "max_steps": [-1, 1.5, True],
    "max_time": [-1, math.inf, "soon", "5", True, [5]],
    "optimizer": ["lion", None, 3],
    "learning_rate": [0, -1e-3, math.nan, math.inf, "1e-3", True, None],
    "weight_decay": [-1, math.nan, None],
    "schedule": ["linear", 3],
    "gradient_clip": [0, -1, math.inf, "5"],
    "ema": [0.0, 1.0, -0.5, 2, "much", math.nan, True],
    "patience": [0, 1.5],
    "evaluate_every": [0, "often"],
    "seed": [1.5, None, True, "0"],
    "device": ["nonsense", 1.5],
    "amp": [None, 1, "yes"],
    "microbatches": [0, 2.0],
    "compile": [None, "auto", 1],
    "initialize": [0, None],
    "checkpoint": [3, True],
    "checkpoint_every": [0, 1.5, True, "soon", None],
    "resume": ["yes", None, 2],
    "progress": ["loud", None],
    "callback": [3],
    "log": [1.5],
    "distributed": [None, "yes", 1],
}


def test_every_option_has_values_below():
    assert list(GOOD) == list(BAD) == FIELDS


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in GOOD.items() for value in values])
def test_values_that_an_option_takes(name, value):
    assert getattr(TrainingConfig(**{name: value}), name) == value


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_values_that_an_option_does_not_take(name, value):
    with pytest.raises(ConfigError, match=f"^{name} must be .*; got {re.escape(repr(value))}\\.$"):
        TrainingConfig(**{name: value})
    with pytest.raises(ConfigError, match=f"^{name} must be"):
        dataclasses.replace(TrainingConfig(), **{name: value})


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [("max_steps", np.int64(5), 5), ("learning_rate", np.float32(0.5), 0.5), ("amp", np.bool_(True), True)],
)
def test_numbers_of_numpy_are_numbers(name, value, expected):
    found = getattr(TrainingConfig(**{name: value}), name)
    assert found == expected
    assert type(found) is type(expected)  # a checkpoint is JSON


def test_a_config_does_not_change():
    config = TrainingConfig(max_steps=3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.max_steps = 4  # pyright: ignore
    assert dataclasses.replace(config, max_steps=4).max_steps == 4
    assert changed_fields(config) == {"max_steps"}
    assert TrainingConfig(max_steps=3) == config


def test_options_replace_those_of_the_config():
    config = TrainingConfig(max_steps=5, batch_size=20, progress="silent")
    results = [
        pf.fit(gaussian(), rows(50), **options).steps
        for options in ({"config": config}, {"config": config, "max_steps": 7})
    ]
    assert results == [5, 7]
    one, other = gaussian(), gaussian()
    pf.fit(one, rows(50), config=config)
    silent(other, rows(50), max_steps=5, batch_size=20)
    assert equal(weights(one), weights(other))


def test_unknown_options_and_configs_are_refused():
    with pytest.raises(TypeError, match=r"no training option 'lr'; the options are batch_size, .*learning_rate"):
        pf.fit(gaussian(), rows(50), lr=1e-3)  # pyright: ignore
    with pytest.raises(ConfigError, match="config must be a TrainingConfig or None"):
        pf.fit(gaussian(), rows(50), config={"max_steps": 5})  # pyright: ignore
    assert make_config(None, {}) == TrainingConfig()


@pytest.mark.parametrize("train", TRAINERS, ids=lambda function: function.__name__)
def test_a_config_can_be_passed_to_everything_that_trains(train):
    config = TrainingConfig(max_steps=4, batch_size=16, progress="silent", evaluate_every=2, seed=3)
    x, name = rows(60), train.__name__
    if name == "fit_two_step":
        result = train(pf.models.TwoStep(pf.models.AutoEncoder(2, latent=1, hidden=(4,))), x, config=config)
        assert result.autoencoder.steps == result.density.steps == 4
    elif name == "deep_ensemble":
        assert len(train(gaussian, x, 2, config=config)) == 2
    elif name == "fit_members":
        assert [result.steps for result in train([gaussian(), gaussian()], x, config=config)] == [4, 4]
    elif name == "fit":
        assert train(gaussian(), x, config=config).steps == 4
    elif name == "bayes_by_backprop":
        assert len(train(gaussian(), x, 2, config=config)) == 2
    else:  # these two set the number of steps themselves
        with pytest.raises(
            ConfigError, match=f"evaluate_every is not available in {name}, which sets it itself|max_steps is not"
        ):
            train(gaussian(), x, 2, config=config)
        config = dataclasses.replace(config, max_steps=None, evaluate_every=None)
        options = {"snapshots": 3, "rank": 2} if name == "swag" else {"burn_in": 2, "thin": 1}
        assert len(train(gaussian(), x, 2, config=config, **options)) == 2
