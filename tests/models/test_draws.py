"""Several draws of the noise of a model: the value, its standard error, and the terms of the chain rule."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pushforward import distributions, models, transforms
from pushforward.errors import ConfigError
from pushforward.likelihood import Kind
from pushforward.numerics import RunningMean
from pushforward.transforms import Step, Transform


class Noisy(Transform):
    """Adds normal noise to the contribution, whose mean exponential is 1, or whose mean is 0."""

    def __init__(self, kind: Kind, scale: float) -> None:
        super().__init__(1)
        self.kind, self.scale = kind, scale

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise=None) -> Step:
        from pushforward.numerics import normal_like

        shift = -0.5 * self.scale**2 if self.kind is Kind.LOWER_BOUND else 0.5 * self.scale**2
        return Step(x, self.scale * normal_like(x, 1, noise)[..., 0] + shift)

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise=None) -> Tensor:
        return z


def test_the_standard_error_is_that_of_the_value() -> None:
    model = models.Flow(Noisy(Kind.LOWER_BOUND, 0.5), distributions.Normal(1))
    x = torch.linspace(-2, 2, 3000)[:, None]
    found = model.evaluate(x, samples=64)
    error = found.value - model.base.log_prob(x)
    assert found.stderr is not None
    truth = math.sqrt(math.expm1(0.25) / 64)  # std(w) / (mean(w) sqrt(k)) of a lognormal w
    assert error.std().item() == pytest.approx(truth, rel=0.05)
    assert found.stderr.mean().item() == pytest.approx(truth, rel=0.05)


def test_more_draws_do_not_raise_an_upper_bound() -> None:
    model = models.Flow(Noisy(Kind.UPPER_BOUND, 1.0), distributions.Normal(1))
    x = torch.linspace(-2, 2, 3000)[:, None]
    gaps = [(model.evaluate(x, samples=k).value - model.base.log_prob(x)).mean().item() for k in (1, 16, 64)]
    assert gaps == pytest.approx([0.5] * 3, abs=0.06)


def test_the_error_of_draws_without_weight() -> None:
    mean = RunningMean(torch.tensor([-math.inf, -math.inf, 0.0]))
    mean.add(torch.tensor([-math.inf, 0.0, 0.0]))
    assert mean.log_mean_exp_error().tolist() == [0.0, 1.0, 0.0]


def test_terms_of_the_chain_rule_outside_the_domain() -> None:
    for layer in (
        transforms.Monotone(2, transforms.MobiusTransformer()),
        transforms.MaskedAutoregressive(2, transforms.CircularSplineTransformer()),
    ):
        model = models.Flow(layer, distributions.VonMises(2))
        x = torch.tensor([[4.0, 0.0], [1.0, 0.5]])
        terms = model.conditional_log_prob(x)
        torch.testing.assert_close(terms.sum(-1), model.log_prob(x))
        assert terms[0].isinf().tolist() == [True, False]
    with pytest.raises(ConfigError, match="samples"):
        model.conditional_log_prob(x, samples=0)
