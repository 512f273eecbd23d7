"""RealNVP: its parts in the order of the paper, its options, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch

from pushforward.distributions import Normal
from pushforward.errors import ConfigError
from pushforward.models import RealNVP

from ..tools import jolted, parts


def test_parts():
    model = RealNVP(4, layers=2, hidden=(8,), batch_norm=True)
    assert parts(model) == ["Standardize", "Coupling", "BatchNorm", "Coupling", "BatchNorm"]
    assert [part.flip for part in model.chain if hasattr(part, "flip")] == [False, True]
    assert type(model.base) is Normal
    assert parts(RealNVP(4, layers=1, hidden=(8,), standardize=False)) == ["Coupling"]


def test_batch_norm_uses_the_whole_training_set_when_scoring():
    model = jolted(RealNVP(3, layers=2, hidden=(8,), batch_norm=True))
    x = 5 + 2 * torch.randn(400, 3, dtype=torch.float64)
    model.initialize(x)
    model.refresh(x)
    z = x
    for part in model.chain:
        z = part.encode(z).z
        if type(part).__name__ == "BatchNorm":
            scaled = (z - part.beta) * torch.exp(-part.log_gamma)
            torch.testing.assert_close(scaled.mean(0), torch.zeros(3).double(), rtol=0, atol=1e-10)
            torch.testing.assert_close(scaled.var(0, correction=0), torch.ones(3).double(), rtol=1e-4, atol=0)


def test_scale_is_bounded():
    model = RealNVP(2, layers=1, hidden=(8,), max_log_scale=0.5, standardize=False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(100)
    contribution = model.evaluate(torch.randn(100, 2)).terms["0.Coupling"]
    assert contribution.abs().max() <= 0.5


@pytest.mark.parametrize("options", [{"layers": 0}, {"max_log_scale": 0.0}, {"max_log_scale": math.nan}])
def test_impossible_arguments(options):
    with pytest.raises(ConfigError):
        RealNVP(3, **options)
