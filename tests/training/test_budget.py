from __future__ import annotations

import math
import re

import pytest
import torch

from pushforward.errors import ConfigError
from pushforward.training.budget import Budget, evaluation_interval, make_budget, make_schedule, seconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", 90),
        ("5m", 300),
        ("1h30m", 5400),
        ("2d", 172800),
        ("1.5h", 5400),
        (12, 12),
        (0.25, 0.25),
        (0, 0),
        ("1m30s", 90),
    ],
)
def test_seconds(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "5", "m", "5 m", "-5m", "1h30", "5x", -1, math.inf, math.nan, True, None, [5]])
def test_seconds_refuses(text):
    with pytest.raises(ConfigError, match="max_time"):
        seconds(text)


def test_default_is_200_passes_between_1000_and_20000_steps():
    assert make_budget(None, None, None, 2).steps == 1_000
    assert make_budget(None, None, None, 30.5).steps == 6_100
    assert make_budget(None, None, None, 1e6).steps == 20_000
    assert make_budget(None, None, None, None).steps == 20_000


def test_the_first_limit_ends_the_run():
    assert make_budget(10, None, None, 2.5) == Budget(25, None, "epochs")
    assert make_budget(10, 7, None, 2.5) == Budget(7, None, "max_steps")
    assert make_budget(2, 7, None, 2.5) == Budget(5, None, "epochs")
    assert make_budget(0.5, None, "1m", 100) == Budget(50, 60.0, "epochs")
    budget = make_budget(None, 10, 8, None)
    assert budget.used(5, 1) == 0.5
    assert budget.used(1, 6) == 0.75
    assert budget.used(20, 6) == 1.0
    assert budget.stop_reason(9, 7.9) is None
    assert budget.stop_reason(10, 7.9) == "max_steps"
    assert budget.stop_reason(9, 8) == "max_time"


def test_epochs_need_a_length():
    with pytest.raises(ConfigError, match="max_steps or max_time"):
        make_budget(3, None, None, None)


def test_schedules():
    cosine = make_schedule("cosine")
    assert [cosine(0.0), cosine(0.5), cosine(1.0)] == pytest.approx([1.0, 0.5, 0.0])
    assert make_schedule(None)(0.7) == 1.0
    assert make_schedule(lambda spent: 1 - spent)(0.25) == 0.75
    assert make_schedule(lambda spent: torch.tensor(1 - spent))(0.25) == 0.75


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, None, "1", (1.0,)], ids=repr)
def test_a_schedule_returns_factors(value):
    message = rf"schedule must return a finite number of at least 0; got {re.escape(repr(value))} at u = 0.25\."
    with pytest.raises(ConfigError, match=message):
        make_schedule(lambda spent: value)(0.25)


@pytest.mark.parametrize(("steps_per_pass", "interval"), [(None, 500), (3, 25), (333.4, 333), (1e6, 1000)])
def test_evaluations_are_one_pass_apart_within_bounds(steps_per_pass, interval):
    assert evaluation_interval(steps_per_pass) == interval
