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
    return pf.Guard(0.05, calibration=200, effort="fast", random_state=0).fit(rows(800, seed=0))


@pytest.fixture(scope="session")
def image_guard() -> pf.Guard:
    return pf.Guard(0.05, max_steps=5, random_state=0).fit(load_image_sample("fashion-mnist")[:300])


@pytest.fixture(scope="session")
def network_guard() -> pf.NetworkGuard:
    first, last = torch.nn.Linear(16, 16), torch.nn.Linear(16, 3)
    with torch.no_grad():  # the class is the brightest of three groups of pixels
        first.weight.copy_(torch.eye(16))
        first.bias.fill_(-0.5)
        last.weight.copy_(2.0 * torch.eye(3).repeat_interleave(6, 1)[:, :16])
        last.bias.zero_()
    net = torch.nn.Sequential(torch.nn.Flatten(), first, torch.nn.Tanh(), last).eval()
    x, y = labeled(1000, seed=0)
    return pf.NetworkGuard(net, 0.05).fit((x[:400], y[:400]), calibration=x[400:])


def labeled(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of 4 x 4 pixels, and their classes, a quarter of which are wrong."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 1, 4, 4, generator=generator)
    pixels = x.flatten(1) - 0.5
    classes = (pixels @ torch.eye(3).repeat_interleave(6, 1)[:, :16].T).argmax(1)
    other = torch.rand(count, generator=generator) < 0.25
    return x, torch.where(other, (classes + 1) % 3, classes)
