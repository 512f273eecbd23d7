"""A model of one feature is a density of one's own choice, not silently a Gaussian."""

from __future__ import annotations

import math

import pytest
import scipy.integrate
import torch
from torch import Tensor

from pushforward.models import IAF, MAF, NICE, NSF, Model, RealNVP

MIDDLE, WIDTH = 2.0, 0.5


def bimodal(count: int, seed: int) -> Tensor:
    """Equal mixture of N(-2, 0.5^2) and N(2, 0.5^2)."""
    generator = torch.Generator().manual_seed(seed)
    side = 2 * torch.randint(2, (count, 1), generator=generator) - 1
    return MIDDLE * side + WIDTH * torch.randn(count, 1, generator=generator)


def log_density(x: Tensor) -> Tensor:
    a, b = (-0.5 * ((x - m) / WIDTH) ** 2 - math.log(WIDTH * math.sqrt(2 * math.pi)) for m in (-MIDDLE, MIDDLE))
    return torch.logaddexp(a, b) - math.log(2.0)


def entropy() -> float:
    def integrand(x: float) -> float:
        value = log_density(torch.tensor(x, dtype=torch.float64)).item()
        return -math.exp(value) * value

    return scipy.integrate.quad(integrand, -8, 8, points=[-MIDDLE, 0, MIDDLE])[0]


def train(model: Model, x: Tensor, context: Tensor | None = None, steps: int = 250) -> None:
    model.train()
    model.initialize(x, context)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        model.loss(x, context).backward()
        optimizer.step()
        schedule.step()
    model.eval()


MAKERS = [
    lambda: NICE(1, hidden=(16,)),
    lambda: RealNVP(1, layers=2, hidden=(16,)),
    lambda: MAF(1, layers=2, hidden=(16,)),
    lambda: MAF(1, layers=1, hidden=(16,), components=3),
    lambda: IAF(1, layers=2, hidden=(16,)),
    lambda: NSF(1, layers=2, hidden=(16, 16)),
    lambda: NSF(1, layer="autoregressive", layers=1, hidden=(16, 16)),
]
NAMES = ["NICE", "RealNVP", "MAF", "MAF MoG", "IAF", "NSF", "NSF AR"]


@pytest.mark.parametrize("make", MAKERS, ids=NAMES)
def test_two_modes_are_learned(make):
    """The best Gaussian is 0.5 nats from the truth; a model that is one cannot come closer."""
    torch.manual_seed(0)
    model = make()
    train(model, bimodal(2000, 1))
    test = bimodal(4000, 2)
    with torch.no_grad():
        reached = model.log_prob(test).mean().item()
    truth = log_density(test).mean().item()
    best_gaussian = -0.5 * math.log(2 * math.pi * math.e * (MIDDLE**2 + WIDTH**2))
    assert abs(truth + entropy()) < 0.05  # the sample is a fair one
    assert truth - best_gaussian > 0.4
    assert reached > truth - 0.2 * (truth - best_gaussian)
    # No density beats the truth but by chance: the mean gain is at most 0 up to its standard error.
    with torch.no_grad():
        gain = model.log_prob(test) - log_density(test)[:, 0]
    assert gain.mean() < 4 * gain.std() / math.sqrt(4000)
    with torch.no_grad():
        middle, modes = model.log_prob(torch.zeros(1, 1)), model.log_prob(torch.tensor([[-2.0], [2.0]]))
    assert (modes > middle + 2).all()


@pytest.mark.parametrize(
    "make",
    [
        lambda: NICE(1, context=1, hidden=(16,)),
        lambda: RealNVP(1, context=1, layers=2, hidden=(16,)),
        lambda: MAF(1, context=1, layers=2, hidden=(16,)),
        lambda: IAF(1, context=1, layers=2, hidden=(16,)),
        lambda: NSF(1, context=1, layers=2, hidden=(16, 16)),
    ],
    ids=["NICE", "RealNVP", "MAF", "IAF", "NSF"],
)
def test_a_conditional_mean_is_learned(make):
    """x = 3 c + noise of 0.3: the entropy given c is far below the marginal one."""
    torch.manual_seed(0)
    model = make()
    generator = torch.Generator().manual_seed(1)
    c = 50 + 10 * torch.randn(1000, 1, generator=generator)  # in units of its own
    x = 0.3 * c + 0.3 * torch.randn(1000, 1, generator=generator)
    train(model, x, c)
    with torch.no_grad():
        reached = model.log_prob(x, c).mean().item()
        shuffled = model.log_prob(x, c.flip(0)).mean().item()
    truth = -0.5 * math.log(2 * math.pi * math.e * 0.3**2)
    assert reached > truth - 0.15
    assert shuffled < truth - 3
    center = model.sample(500, torch.tensor([60.0]), seed=0).mean().item()
    assert center == pytest.approx(18.0, abs=0.3)
