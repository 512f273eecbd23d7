"""Many rows are scored in parts: the same numbers and errors, with memory that does not grow with the rows."""

from __future__ import annotations

import math

import pytest
import torch

import pushforward as pf
from pushforward import models
from pushforward.errors import InputError
from pushforward.kernels import tuning
from pushforward.models import base

ROWS = 2 * tuning.SCORING_ROWS + 77


@pytest.fixture
def calls(monkeypatch) -> list[int]:
    """Rows of every chain that was run."""
    seen: list[int] = []
    whole = base.Model._log_likelihood

    def watched(self, x, context, noise):
        seen.append(len(x))
        return whole(self, x, context, noise)

    monkeypatch.setattr(base.Model, "_log_likelihood", watched)
    return seen


@pytest.mark.parametrize("context", [0, 2])
def test_parts_give_what_the_whole_gives(context, calls):
    model = models.RealNVP(3, context=context, hidden=(16,)).double().eval()
    x = torch.randn(ROWS, 3, dtype=torch.float64)
    given = torch.randn(ROWS, context, dtype=torch.float64) if context else None
    whole = model.log_prob(x, given)  # with a gradient
    assert calls == [ROWS]
    with torch.no_grad():
        parts = model.log_prob(x, given)
    assert calls[1:] == [tuning.SCORING_ROWS, tuning.SCORING_ROWS, 77]
    torch.testing.assert_close(parts, whole.detach(), rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_parts_are_smaller_where_a_layer_has_many_outputs(calls):
    chain = pf.transforms.Coupling(
        80, pf.transforms.SplineTransformer(8), hidden=(8,)
    )  # 40 coordinates, 23 numbers each
    model = models.Flow(chain, pf.distributions.Normal(80)).eval()
    x = torch.randn(tuning.SCORING_ROWS + 5, 80)
    found = model.log_prob(x)
    assert calls == [tuning.SCORING_ROWS // 2, tuning.SCORING_ROWS // 2, 5]
    model.log_prob(x[: tuning.SCORING_ROWS - 1])
    assert calls[3:] == [tuning.SCORING_ROWS - 1]
    torch.testing.assert_close(found[:3], model.log_prob(x[:3]))


@torch.no_grad()
def test_one_context_for_all_rows(calls):
    model = models.RealNVP(3, context=2, hidden=(16,)).eval()
    x, given = torch.randn(ROWS, 3), torch.randn(2)
    torch.testing.assert_close(model.log_prob(x, given), model.log_prob(x, given.expand(ROWS, 2)))


@torch.no_grad()
def test_models_that_depend_on_the_batch_are_not_split(calls):
    model = models.MAF(3, hidden=(16,), batch_norm=True)
    model.log_prob(torch.randn(ROWS, 3))
    assert calls == [ROWS]


@torch.no_grad()
def test_errors_name_the_row_of_all_rows():
    model, x = models.RealNVP(3, hidden=(16,)).eval(), torch.zeros(ROWS, 3)
    x[tuning.SCORING_ROWS + 5, 1] = math.nan
    with pytest.raises(InputError, match=str(tuning.SCORING_ROWS + 5)):
        model.log_prob(x)
    x[tuning.SCORING_ROWS + 5, 1] = math.inf
    assert model.log_prob(x)[tuning.SCORING_ROWS + 5] == -math.inf
    with pytest.raises(InputError, match="data of shape"):
        model.log_prob(torch.zeros(ROWS, 4))
    given, context = models.RealNVP(3, context=2, hidden=(16,)).eval(), torch.zeros(ROWS, 2)
    context[tuning.SCORING_ROWS + 5, 1] = math.nan
    with pytest.raises(InputError, match=str(tuning.SCORING_ROWS + 5)):
        given.log_prob(torch.zeros(ROWS, 3), context)
