"""Guards of a table with a hostile column, of images and of a network, and rows for them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

import pushforward as pf
from pushforward.data import load_image_sample

HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'


def rows(count: int, seed: int, shift: float = 0.0) -> pa.Table:
    """Rows with numbers, integers, dates, flags, missing cells, and a column whose name and values are markup."""
    rng = np.random.default_rng(seed)
    temperature = rng.normal(20 + shift, 5, count)
    return pa.table(
        {
            "temperature": temperature,
            "pressure": temperature / 5 + rng.normal(size=count),
            "count": rng.integers(0, 9, count),
            "day": rng.integers(0, 2000, count).astype("datetime64[D]"),
            "valve open": rng.random(count) < 0.3,
            "flow": pa.array(rng.normal(size=count), mask=rng.random(count) < 0.1),
            HOSTILE: rng.choice([HOSTILE, "x|y", "z`*"], count, p=[0.2, 0.5, 0.3]),
        }
    )


@pytest.fixture(scope="session")
def table_guard() -> pf.Guard:
    return pf.Guard(0.05, effort="fast", random_state=0).fit(rows(800, seed=0))


@pytest.fixture(scope="session")
def image_guard() -> pf.Guard:
    return pf.Guard(0.05, max_steps=5, random_state=0).fit(load_image_sample("fashion-mnist")[:300])


@pytest.fixture(scope="session")
def network_guard() -> pf.NetworkGuard:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3)).eval()
    x, y = torch.rand(900, 1, 4, 4), torch.arange(900) % 3
    return pf.NetworkGuard(net, 0.05).fit((x[:400], y[:400]), calibration=x[400:])
