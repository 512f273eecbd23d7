"""A large batch in parts has the gradient of the whole."""

from __future__ import annotations

import pytest
import torch

import pushforward as pf
from pushforward.kernels import tuning
from pushforward.training.gradients import gradients, split_batch
from pushforward.training.sources import Batch

ROWS = 8192 + 1000


@pytest.fixture
def small(monkeypatch):
    """Batches of 80 rows or more are split into parts of 20, for networks of width 16 or more."""
    monkeypatch.setattr(tuning, "MICROBATCH_FROM_ROWS", 80)
    monkeypatch.setattr(tuning, "MICROBATCH_ROWS", 20)
    monkeypatch.setattr(tuning, "MICROBATCH_FROM_OUTPUTS", 16)


def found(model, x, context=None, **options):
    weights = [p for p in model.parameters() if p.requires_grad]
    given = {"noise": torch.Generator().manual_seed(0), "clip": None, "amp": False} | options
    loss, norm = gradients(model, weights, Batch(x, context, 0, 0), **given)
    return loss, norm, [p.grad.clone() for p in weights if p.grad is not None]


@pytest.mark.parametrize("context", [0, 2])
def test_loss_norm_and_gradients_are_those_of_the_whole(context, small, monkeypatch):
    torch.manual_seed(0)
    model = pf.models.RealNVP(3, context, layers=2, hidden=(16, 4)).double()
    x = torch.randn(90, 3, dtype=torch.float64)
    given = torch.randn(90, 2, dtype=torch.float64) if context else None
    pieces = split_batch(model, Batch(x, given, 0, 0))
    assert [len(part.x) for part in pieces] == [20] * 4 + [10]
    assert torch.equal(torch.cat([part.x for part in pieces]), x)
    if given is not None:
        assert torch.equal(torch.cat([part.context for part in pieces]), given)
    loss, norm, grads = found(model, x, given)
    monkeypatch.setattr(tuning, "MICROBATCH_FROM_ROWS", 91)
    assert len(split_batch(model, Batch(x, given, 0, 0))) == 1
    whole_loss, whole_norm, whole = found(model, x, given)
    torch.testing.assert_close(loss, whole_loss, rtol=1e-12, atol=0)
    torch.testing.assert_close(norm, whole_norm, rtol=1e-10, atol=0)
    assert len(grads) == len(whole) > 0
    for one, other in zip(grads, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_the_norm_is_clipped_once_for_all_parts(small):
    torch.manual_seed(0)
    model = pf.models.RealNVP(3, layers=2, hidden=(16, 4)).double()
    x = 9 * torch.randn(90, 3, dtype=torch.float64)
    assert len(split_batch(model, Batch(x, None, 0, 0))) == 5
    _, norm, grads = found(model, x, clip=1e-3)
    assert norm > 1e-3
    assert torch.cat([g.flatten() for g in grads]).norm().item() == pytest.approx(1e-3, rel=1e-4)


def test_batches_that_cannot_be_split_are_not_split():
    rows = Batch(torch.zeros(ROWS, 3), None, 0, 0)
    wide = {"hidden": (512, 4)}
    parts = split_batch(pf.models.MAF(3, layers=1, **wide), rows)
    assert [len(part.x) for part in parts] == [2048] * 4 + [1000]
    assert len(split_batch(pf.models.MAF(3, layers=1, hidden=(8, 8)), rows)) == 1  # narrow
    assert len(split_batch(pf.models.MAF(3, layers=1, batch_norm=True, **wide), rows)) == 1  # rows depend on each other
    assert len(split_batch(pf.models.VAE(3, 2, **wide), rows)) == 1  # a loss of its own
    assert len(split_batch(pf.models.MAF(3, layers=1, **wide), rows._replace(x=rows.x[:8191]))) == 1


@pytest.mark.parametrize(
    ("microbatches", "sizes"), [(1, [10]), (3, [4, 3, 3]), (6, [2, 2, 2, 2, 1, 1]), (10, [1] * 10), (50, [1] * 10)]
)
def test_a_batch_in_as_many_parts_as_asked(microbatches, sizes):
    model, x = pf.models.MAF(3, context=2, hidden=(8,)).double(), torch.randn(10, 3, dtype=torch.float64)
    given = torch.randn(10, 2, dtype=torch.float64)
    assert [len(part.x) for part in split_batch(model, Batch(x, given, 0, 0), microbatches)] == sizes
    loss, norm, grads = found(model, x, given, microbatches=microbatches)
    whole_loss, whole_norm, whole = found(model, x, given)
    torch.testing.assert_close((loss, norm), (whole_loss, whole_norm), rtol=1e-12, atol=0)
    torch.testing.assert_close(grads, whole, rtol=1e-9, atol=1e-12)


def test_fit_splits_batches_into_microbatches():
    x = torch.randn(300, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = []
    for microbatches in (None, 4):
        torch.manual_seed(0)
        model = pf.models.MAF(2, hidden=(8,)).double()
        pf.fit(model, x, batch_size=64, max_steps=30, microbatches=microbatches, progress="silent")
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-6, atol=1e-8)
    assert not torch.equal(weights[0], weights[1])
    with pytest.raises(pf.errors.ConfigError, match="microbatches must be an integer of at least 1"):
        pf.fit(model, x, microbatches=0)
