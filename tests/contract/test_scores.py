"""Every score and statistic: each row by itself, finite far out, the same after a file."""

from __future__ import annotations

import math

import pytest
import torch

from pushforward import io
from pushforward.detection.scores import Score
from pushforward.errors import InputError

from .cases import SCORES, ScoreCase
from .tools import build

ROWS = 40


def drawn(case: ScoreCase, rows: int, seed: int) -> torch.Tensor:
    return case.data((rows, *case.shape), torch.Generator().manual_seed(seed)).float()


def fitted(case: ScoreCase):
    return build(case).float().fit(drawn(case, ROWS, 0))


@pytest.mark.parametrize("case", SCORES, ids=str)
def test_each_row_by_itself(case):
    """score(x)[i] == score(x[i:i+1]), bit for bit, in any company and order."""
    score, x = fitted(case), drawn(case, 9, 1)
    values = score.values(x)
    assert values.shape == (9, len(score.names))
    assert values.dtype is torch.float64
    assert torch.isfinite(values).all()
    alone = torch.cat([score.values(x[i : i + 1]) for i in range(9)])
    assert torch.equal(alone, values)
    assert torch.equal(score.values(x.flip(0)).flip(0), values)
    assert torch.equal(score.values(x), values)  # deterministic
    if isinstance(score, Score):
        assert torch.equal(score(x), values[:, 0])


@pytest.mark.parametrize("case", SCORES, ids=str)
def test_scoring_changes_no_state(case):
    score, x = fitted(case), drawn(case, 3, 1)
    before = {name: tensor.clone() for name, tensor in score.state_dict().items()}
    grads = [p.grad for p in score.parameters()]
    state = torch.random.get_rng_state()
    values = score.values(x)
    assert not values.requires_grad
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(before[name], tensor) for name, tensor in score.state_dict().items())
    assert [p.grad for p in score.parameters()] == grads


@pytest.mark.parametrize("case", SCORES, ids=str)
def test_far_rows(case):
    score, x = fitted(case), drawn(case, 4, 1)
    calm = score.values(x)
    x[1] *= case.reach
    x[2, ..., 0] = math.inf
    values = score.values(x)
    assert not torch.isnan(values).any()
    assert torch.isfinite(values[1]).all()
    assert torch.equal(values[[0, 3]], calm[[0, 3]])
    if isinstance(score, Score):
        assert values[2, 0] > -math.inf
        assert not case.infinite or values[2, 0] == math.inf


@pytest.mark.parametrize("case", SCORES, ids=str)
def test_bad_input(case):
    score, x = fitted(case), drawn(case, 4, 1)
    assert score.values(x[:0]).shape == (0, len(score.names))
    x[2, ..., 0] = math.nan
    with pytest.raises(InputError, match="row 2"):
        score.values(x)
    with pytest.raises(InputError):
        score.values(x[0, ..., 0].reshape(-1))
    with pytest.raises(InputError, match="none"):
        score.fit(x[:0])
    fresh = build(case)
    if fresh._declared:
        with pytest.raises(InputError, match="fit"):
            fresh.values(drawn(case, 2, 1))


@pytest.mark.parametrize("case", SCORES, ids=str)
def test_through_a_file(case, tmp_path):
    score, x = fitted(case), drawn(case, 5, 1)
    description, tensors = io.pack(score)
    io.write(tmp_path / "f", {"kind": "guard", "score": description}, tensors)
    header, tensors = io.read(tmp_path / "f")
    again = io.unpack(header["score"], tensors)
    assert torch.equal(again.values(x), score.values(x))


@pytest.mark.parametrize("case", SCORES, ids=str)
def test_declared_needs_and_names(case):
    score = build(case)
    assert score.needs <= {"forward", "backward", "second model", "ensemble", "compressor", "Jacobian"}
    assert len(set(score.names)) == len(score.names) >= 1
