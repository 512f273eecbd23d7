"""Read-only arrays, as pictures, data frames and memory-mapped files give, are read without a copy by the user or a warning."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import pushforward as pf


@pytest.fixture(autouse=True)
def every_warning() -> Iterator[None]:
    """torch gives its warning only once in a process; here it gives it each time, and a warning is an error."""
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(before)


def read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


@pytest.fixture(params=[np.float32, np.float64])
def rows(request) -> np.ndarray:
    return read_only(np.random.default_rng(0).normal(size=(300, 3)).astype(request.param))


def test_that_the_warning_is_an_error_here(rows) -> None:
    with pytest.raises(UserWarning, match="not writable"):
        torch.from_numpy(rows)


@pytest.mark.parametrize(
    "options", [{}, {"density": True, "n_estimators": 1, "max_steps": 5}, {"smoothing": 0.5}], ids=str
)
def test_guards_of_tables(rows, options: dict[str, Any]) -> None:
    guard = pf.Guard(0.05, random_state=0, **options).fit(rows)
    assert len(guard.assess(rows[:3])["p_value"]) == 3


def test_guards_of_images() -> None:
    images = read_only(np.random.default_rng(0).integers(0, 255, (200, 4, 4)).astype(np.uint8))
    guard = pf.Guard(0.1, max_steps=3, random_state=0).fit(images)
    assert len(guard.p_value(images[:2])) == 2


def test_densities(rows) -> None:
    density = pf.FlowDensity(max_steps=5).fit(rows)
    assert density.score_samples(rows[:3]).shape == (3,)
    pf.fit(pf.models.NICE(3), rows, max_steps=2, progress="silent")


def test_network_guards(rows) -> None:
    x, y = read_only(rows.astype(np.float32)), read_only((rows[:, 0] > 0).astype(int))
    net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    guard = pf.NetworkGuard(net, alpha=0.05).fit((x[:150], y[:150]), calibration=x[150:])
    assert guard(x[:2]).p_value.shape == (2,)


def test_posteriors(rows) -> None:
    prior = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(3), 1.0), 1)
    posterior = pf.inference.NPE(prior).fit(rows, rows, max_steps=3)
    assert posterior.sample(4, x=rows[0]).shape[-1] == 3
