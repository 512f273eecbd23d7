"""A simulator with a known posterior: theta ~ N(0, I), x = theta + 0.5 noise."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import distributions as td

from pushforward.inference import Prior, SimulationPosterior
from pushforward.inference.data_scale import DataScale

NOISE = 0.5
PRIOR = td.Normal(torch.zeros(2), 1.0)
VARIANCE = NOISE**2 / (1 + NOISE**2)


def simulator(theta):
    return theta + NOISE * torch.randn_like(theta)


def simulations(count, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        theta = PRIOR.sample((count,))
        return theta, simulator(theta)


class Exact(SimulationPosterior):
    """The posterior N(x / (1 + s^2), s^2 / (1 + s^2)); made wrong by a factor of its width, a shift, or a rotation."""

    method: ClassVar[str] = "closed form of the tests"

    def __init__(self, width=1.0, shift=0.0, correlation=0.0):
        super().__init__(Prior(PRIOR), [torch.nn.Identity()], DataScale(2), (2,))
        self.width, self.shift, self.correlation = width, shift, correlation

    def _distribution(self, x):
        std = self.width * math.sqrt(VARIANCE)
        covariance = std**2 * torch.tensor([[1.0, self.correlation], [self.correlation, 1.0]])
        return td.MultivariateNormal(x / (1 + NOISE**2) + self.shift * std, covariance)

    def _sample(self, count, x, generator):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            return self._distribution(x).sample((count,))

    def _log_prob(self, theta, x):
        return self._distribution(x).log_prob(theta)
