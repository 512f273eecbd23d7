"""Models whose weights have a posterior in closed form, and a VAE."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

import pushforward as pf
from pushforward.transforms import Step, Transform

SHIFT = "chain.transforms.0.shift"


def location(features: int) -> pf.models.Model:
    """x ~ N(shift, 1): with the prior N(0, s^2) the posterior of each shift is N(sum x / P, 1 / P), P = N + 1 / s^2."""
    return pf.models.Flow(pf.transforms.ActNorm(features), pf.distributions.Normal(features))


class Regression(Transform):
    """x ~ N(W u + b, noise^2) given the context u."""

    def __init__(self, features: int, context: int, noise: float) -> None:
        super().__init__(features)
        self.features, self.context, self.noise = features, context, noise
        self.line = nn.Linear(context, features)

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise=None) -> Step:
        assert context is not None
        z = (x - self.line(context)) / self.noise
        return Step(z, x.new_full(x.shape[:-1], -self.features * math.log(self.noise)))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise=None) -> Tensor:
        assert context is not None
        return z * self.noise + self.line(context)


def vae() -> pf.models.VAE:
    return pf.models.VAE((1, 4, 4), latent=2, levels=4, hidden=(8,))


def images(count: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 4, (count, 1, 4, 4), generator=torch.Generator().manual_seed(seed))
