"""Common parts of models of vectors: widths, contexts, and standardization as part of the density."""

from __future__ import annotations

import pytest
import torch

from pushforward.errors import ConfigError, InputError
from pushforward.models import MAF, NSF, RealNVP


@pytest.mark.parametrize("cls", [RealNVP, MAF, NSF])
def test_vector_models_require_a_width(cls):
    for features in (0, -1, 2.5, "3", None, (2, 3)):
        with pytest.raises(ConfigError):
            cls(features)


@pytest.mark.parametrize("cls", [RealNVP, MAF, NSF])
@pytest.mark.parametrize("context", [-1, 1.5, True, "2"])
def test_impossible_contexts(cls, context):
    with pytest.raises(ConfigError, match="context"):
        cls(3, context=context)


def test_standardization_is_part_of_the_density():
    """In other units the density changes by the log of the unit, and nothing else."""
    torch.manual_seed(0)
    x = torch.randn(300, 2, dtype=torch.float64)
    unit = torch.tensor([1000.0, 0.01], dtype=torch.float64)
    a = NSF(2, layers=1, hidden=(8, 8)).double()
    b = NSF(2, layers=1, hidden=(8, 8)).double()
    b.load_state_dict(a.state_dict())
    a.initialize(x)
    b.initialize(unit * x - 7)
    difference = a.log_prob(x) - b.log_prob(unit * x - 7)
    torch.testing.assert_close(difference, unit.log().sum().expand(300), rtol=0, atol=1e-6)


def test_context_errors_name_the_widths():
    model = MAF(3, context=2, layers=1, hidden=(8,))
    with pytest.raises(InputError, match="context=2"):
        model.log_prob(torch.zeros(1, 3))
    with pytest.raises(InputError, match="width 2"):
        model.log_prob(torch.zeros(1, 3), torch.zeros(1, 5))
