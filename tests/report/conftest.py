"""Guards of a table with a hostile column, of images and of a network, and rows for them."""

from __future__ import annotations

import pytest
import torch
from report_rows import labeled, rows

import pushforward as pf
from pushforward.data import load_image_sample


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
