"""NAF, UMNN, SOS and BernsteinFlow: their parts, their laws, and what they refuse."""

from __future__ import annotations

import pytest
import torch

from pushforward.distributions import Normal
from pushforward.errors import ConfigError
from pushforward.models import NAF, SOS, UMNN, BernsteinFlow
from pushforward.transforms import (
    BernsteinTransformer,
    SigmoidalTransformer,
    SumOfSquaresTransformer,
    UnconstrainedMonotoneTransformer,
)

MODELS = [
    (NAF, {"units": 3, "transformer_layers": 2}, SigmoidalTransformer(2, 3)),
    (UMNN, {"units": 3, "nodes": 32}, UnconstrainedMonotoneTransformer(3, 32)),
    (SOS, {"polynomials": 2, "degree": 3}, SumOfSquaresTransformer(2, 3)),
    (BernsteinFlow, {"degree": 5}, BernsteinTransformer(5)),
]
every = pytest.mark.parametrize(("model", "options", "law"), MODELS, ids=["NAF", "UMNN", "SOS", "Bernstein"])


@every
def test_parts_and_alternating_order(model, options, law):
    built = model(3, context=2, layers=3, hidden=(8,), **options)
    assert [type(part).__name__ for part in built.chain] == ["Standardize", *["MaskedAutoregressive"] * 3]
    assert [part.autoregressive_order for part in list(built.chain)[1:]] == [(0, 1, 2), (2, 1, 0), (0, 1, 2)]
    assert all(part.transformer == law for part in list(built.chain)[1:])
    assert type(built.base) is Normal
    assert built.fast == "log_prob"


@every
def test_starts_near_the_base_and_samples_come_back(model, options, law):
    torch.manual_seed(0)
    built = model(3, layers=2, hidden=(8,), standardize=False, **options).double()
    x = torch.randn(50, 3, dtype=torch.float64)
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(-1)
    assert (built.log_prob(x) - normal).abs().mean() < 1.0
    wide = 100 * x
    torch.testing.assert_close(built.decode(built.encode(wide)), wide, rtol=1e-9, atol=1e-9)


@every
def test_impossible_arguments(model, options, law):
    for wrong in ({"layers": 0}, {"layers": True}, {next(iter(options)): 0}, {"hidden": (0,)}):
        with pytest.raises(ConfigError):
            model(3, **wrong)
