"""Rows with weights: what a pass reads, what training ends at, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader

import pushforward as pf
from pushforward.errors import ConfigError, InputError, PushforwardWarning
from pushforward.training.input_spec import InputSpec
from pushforward.training.open_sources import open_sources
from pushforward.training.sources import ArrayRows, Position
from pushforward.training.weighted_rows import WeightedRows, effective_rows, row_weights, systematic

from .tiny import SPEC, gaussian, numbered, rows, take


def weighted(count: int, size: int | None, weights: torch.Tensor) -> WeightedRows:
    worth = effective_rows(weights.double()) / count
    return WeightedRows(SPEC, numbered(count), None, torch.arange(count), size, 3, weights.double(), worth)


def test_each_pass_draws_a_row_as_often_as_its_weight_says_rounded_up_or_down():
    weights = torch.tensor([0.5, 4.0, 1.0, 2.5, 1.3, 0.7, 3.0, 7.0])
    source = weighted(8, 5, weights)  # 20^2 / 88.08 = 4.5 rows of equal weight, rounded
    assert (source.reads, source.batch_size, source.steps) == (5, 5, 1.0)
    passes = torch.cat([batch.x for batch in take(source, 3000)]).flatten().int().reshape(3000, 5)
    times = torch.stack([(passes == row).sum(1) for row in range(8)], 1).double()
    expected = 5 * weights.double() / weights.sum()
    assert bool(((times >= expected.floor()) & (times <= expected.ceil())).all())
    # The mean is exact, so the deviation of 3,000 passes is that of a rounding at random: at most 0.5 / sqrt(3000).
    assert bool(((times.mean(0) - expected).abs() < 4 * 0.5 / math.sqrt(3000)).all())


def test_passes_differ_in_order_and_a_position_can_be_restored():
    source = weighted(10, 4, torch.arange(1, 11))
    whole = take(source, 9)
    assert source.reads == 8  # 55^2 / 385
    assert not torch.equal(torch.cat([b.x for b in whole[:2]]), torch.cat([b.x for b in whole[2:4]]))
    again = take(weighted(10, 4, torch.arange(1, 11)), 4, Position(5, whole[4].epoch, whole[4].number + 1))
    assert all(torch.equal(one.x, other.x) for one, other in zip(whole[5:], again, strict=True))


def test_many_rows_of_almost_no_weight_change_neither_passes_nor_batches():
    few, none = torch.ones(400), torch.full((39_600,), 1e-12)
    source = weighted(40_000, None, torch.cat((few, none)))
    alone = ArrayRows(SPEC, numbered(400), None, torch.arange(400), None, 3)
    assert (source.reads, source.batch_size, source.steps) == (alone.reads, alone.batch_size, alone.steps)


def test_parts_are_worth_their_part_whichever_rows_they_have():
    sources = [open_sources(SPEC, numbered(500), None, 0.1, None, seed, torch.rand(500) ** 3) for seed in range(5)]
    for train, held_out in sources:
        assert train.reads == pytest.approx(9 * held_out.reads, rel=0.05)
    weights = torch.rand(500) ** 3
    assert len({open_sources(SPEC, numbered(500), None, 0.1, None, seed, weights)[0].steps for seed in range(5)}) == 1


def test_rows_of_weight_zero_are_in_no_batch_and_no_held_out_set():
    x = torch.arange(100.0)[:, None]
    weights = (torch.arange(100) % 3 > 0) * torch.linspace(1, 2, 100)
    train, held_out = open_sources(SPEC, x, None, 0.2, 10, 0, weights)
    seen = torch.cat([batch.x for batch in take(train, 50)] + [pair[0] for pair in held_out.ordered()])
    assert set((seen.flatten() % 3).tolist()) == {1.0, 2.0}
    shares = torch.cat(list(held_out.ordered_weights()))
    kept = torch.cat([pair[0] for pair in held_out.ordered()]).flatten().long()
    torch.testing.assert_close(shares, weights[kept].double() / weights[kept].double().sum())


@pytest.mark.parametrize("count", [1, 7, 1000])
def test_systematic_draws_with_equal_shares_are_each_row_once(count):
    found = systematic(
        torch.full((count,), 1 / count, dtype=torch.float64), count, torch.Generator().manual_seed(count)
    )
    assert found.tolist() == list(range(count))


def test_a_gaussian_gets_the_weighted_moments():
    x = rows(4000, scale=2.0)
    weights = torch.exp(-0.5 * ((x[:, 0] - 1) / 0.5).square() + 0.5 * (x[:, 0] / 2).square())
    model = gaussian()
    result = pf.fit(model, x, weights=weights, max_steps=600, seed=0, progress="silent")
    share = weights.double() / weights.double().sum()
    mean = (share[:, None] * x).sum(0)
    std = (share[:, None] * (x - mean).square()).sum(0).sqrt()
    draws = model.sample(100_000, seed=0).double()
    # Held-out rows are a tenth, so the fit is to the others, which differ by a standard error of about 0.03.
    assert bool(((draws.mean(0) - mean).abs() < 0.05 * std).all())
    assert bool(((draws.std(0) / std).log().abs() < 0.05).all())
    assert abs(float(mean[0]) - 1) < 0.05  # by importance sampling it is that of the target
    assert abs(float(std[0]) - 0.5) < 0.03
    assert result.best_validation is not None


def test_the_held_out_value_is_the_weighted_mean():
    x, weights = rows(300), torch.linspace(0, 3, 300)
    model = gaussian()
    result = pf.fit(model, x, weights=weights, max_steps=5, seed=4, progress="silent")
    _, held_out = open_sources(InputSpec.of(model), x, None, 0.1, None, 4, weights)
    kept = held_out.rows
    with torch.no_grad():
        values = model.log_prob(x[kept]).double()
    share = weights[kept].double()
    assert result.best_validation == pytest.approx(float((values * share).sum() / share.sum()), abs=1e-6)
    assert abs(result.best_validation - float(values.mean())) > 1e-4  # and not the plain one


def test_held_out_rows_that_are_given_have_weights_of_their_own():
    x, weights = rows(100), torch.linspace(1, 2, 100)
    model = gaussian()
    options = {"weights": weights[:80], "validation": x[80:], "max_steps": 2, "seed": 0, "progress": "silent"}
    result = pf.fit(model, x[:80], validation_weights=weights[80:], **options)
    with torch.no_grad():
        values, share = model.log_prob(x[80:]).double(), weights[80:].double()
    assert result.best_validation == pytest.approx(float((values * share).sum() / share.sum()), abs=1e-6)
    result = pf.fit(gaussian(), x[:80], validation_weights=torch.ones(20), **options)
    with pytest.warns(PushforwardWarning, match="the held-out rows have none"):
        assert pf.fit(gaussian(), x[:80], **options).best_validation == result.best_validation
    with pytest.raises(InputError, match="each of the 20 held-out rows"):
        pf.fit(gaussian(), x[:80], validation_weights=[1.0], **options)


@pytest.mark.parametrize("validation", [0.1, None])
def test_weights_of_held_out_rows_that_are_not_given_are_refused(validation):
    with pytest.raises(ConfigError, match="validation_weights= is for held-out rows that are given"):
        pf.fit(gaussian(), rows(50), validation=validation, validation_weights=[1.0], max_steps=1, progress="silent")


def test_a_held_out_row_without_mass_makes_the_weighted_mean_infinite_and_is_counted():
    x, weights = torch.rand(100, 1) + 0.1, torch.linspace(1, 2, 100)
    model = pf.models.Flow(pf.transforms.Bounds(1, [0.0], [None]), pf.distributions.Normal(1))
    _, held_out = open_sources(InputSpec.of(model), x, None, 0.1, None, 0, weights)
    x[held_out.rows[3]] = -1.0
    with pytest.warns(PushforwardWarning, match="1 held-out rows have no finite"):
        result = pf.fit(model, x, weights=weights, max_steps=2, seed=0, progress="silent")
    assert result.best_validation == -math.inf
    assert result.history[-1]["outside"] == 1


def test_equal_weights_are_no_weights():
    x, one, other = rows(200), gaussian(), gaussian()
    first = pf.fit(one, x, max_steps=20, seed=0, progress="silent")
    second = pf.fit(other, x, weights=[3] * 200, max_steps=20, seed=0, progress="silent")
    assert first.best_validation == second.best_validation
    assert torch.equal(one.log_prob(x), other.log_prob(x))


def test_only_ratios_of_weights_count():
    x, weights = rows(200), np.linspace(0.5, 2, 200)
    found = []
    for scale in (1.0, 1e-300, 1e300):
        model = gaussian()
        pf.fit(model, x, weights=scale * weights, max_steps=10, seed=0, progress="silent")
        found.append(model.log_prob(x).detach())
    assert torch.allclose(found[0], found[1], atol=1e-6)
    assert torch.allclose(found[0], found[2], atol=1e-6)


@pytest.mark.parametrize(
    "kind",
    [
        list,
        np.asarray,
        torch.as_tensor,
        pd.Series,
        lambda w: torch.tensor(w, dtype=torch.bfloat16),
        lambda w: torch.tensor(w, requires_grad=True),
    ],
)
def test_weights_of_any_kind(kind):
    x, weights = rows(50), [0.0, *range(1, 50)]
    model, other = gaussian(), gaussian()
    pf.fit(model, x, weights=kind(weights), max_steps=5, seed=0, progress="silent")
    pf.fit(other, x, weights=np.float64(weights)[:, None], max_steps=5, seed=0, progress="silent")
    assert torch.equal(model.log_prob(x), other.log_prob(x))


def test_context_goes_with_its_row():
    x = rows(400, 1)
    context = x * 2
    spec = InputSpec.of(pf.models.RealNVP(1, context=1))
    train, _ = open_sources(spec, x, context, None, 40, 0, torch.linspace(0, 1, 400))
    batch = take(train, 1)[0]
    assert torch.equal(batch.context, batch.x * 2)


def test_models_together_end_where_each_ends_alone():
    x, weights = rows(300), torch.linspace(0, 3, 300)
    torch.manual_seed(0)
    models = [pf.models.RealNVP(2, hidden=(8,), layers=2) for _ in range(2)]
    torch.manual_seed(0)
    alone = [pf.models.RealNVP(2, hidden=(8,), layers=2) for _ in range(2)]
    results = pf.training.fit_members(models, x, weights=weights, stack=True, max_steps=30, progress="silent")
    for seed, (model, result) in enumerate(zip(alone, results, strict=True)):
        single = pf.fit(model, x, weights=weights, max_steps=30, seed=seed, progress="silent")
        assert result.best_validation == pytest.approx(single.best_validation, abs=1e-4)
    sequential = pf.training.fit_members(alone, x, weights=weights, stack=False, max_steps=2, progress="silent")
    assert len(sequential) == 2


def test_a_run_goes_on_with_the_same_weights_and_not_with_others(tmp_path):
    x, weights = rows(300), torch.linspace(0, 3, 300)
    path = tmp_path / "run"

    def train(weights, steps):
        model = gaussian()
        options = {"checkpoint": path, "max_steps": 20, "seed": 0, "progress": "silent"}
        return model, pf.fit(model, x, weights=weights, callback=lambda event: event.step >= steps, **options)

    train(weights, 10)
    with pytest.raises(pf.errors.TrainingError, match="content of data"):
        train(weights.flip(0), 20)
    model, result = train(weights, 20)
    whole = gaussian()
    pf.fit(whole, x, weights=weights, max_steps=20, seed=0, progress="silent")
    assert result.steps == 20
    assert torch.equal(model.log_prob(x), whole.log_prob(x))


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ([1.0, 2.0], r"one number of at least 0 for each of the 5 rows; got the shape \(2,\)"),
        ([1, 2, -3, 4, 5], "that of row 2 is -3"),
        ([1, math.nan, 3, 4, 5], "that of row 1 is nan"),
        ([1, math.inf, 3, 4, 5], "that of row 1 is inf"),
        ([0, 0, 0, 0, 0], "all weights are zero"),
        (["a"] * 5, "cannot be read as such"),
        ([None] * 5, "that of row 0 is nan|cannot be read as such"),
        ([1j] * 5, "cannot be read as such"),
        (torch.ones(5) * 1j, "cannot be read as such"),
        ("many", "cannot be read as such"),
        (0.5, r"got the shape \(\)"),
        (np.ones((5, 2)), r"got the shape \(5, 2\)"),
        (np.ma.masked_array([1.0, 2, 3, 4, 5], mask=[0, 0, 1, 0, 0]), "that of row 2 is nan"),
    ],
)
def test_wrong_weights_are_refused(weights, words):
    with pytest.raises(InputError, match=words):
        pf.fit(gaussian(), rows(5), weights=weights, max_steps=1, progress="silent")


def test_weights_of_a_loader_are_refused_with_what_to_do():
    with pytest.raises(ConfigError, match="WeightedRandomSampler"):
        pf.fit(
            gaussian(), DataLoader(rows(5)), weights=[1, 2, 3, 4, 5], validation=None, max_steps=1, progress="silent"
        )


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ([500.0] + [1.0] * 999, "worth 9.0 of 1000 rows of equal weight, and row 0 alone has 33%"),
        ([1.0] * 40 + [1e-12] * 3960, "worth 40.0 of 4000 rows of equal weight, and row 0 alone has 2%"),
        ([1e-9] * 9 + [1.0], "worth 1.0 of 10 rows of equal weight, and row 9 alone has 100%"),
        ([60.0] + [1.0] * 940, "worth 220.3 of 941 rows of equal weight, and row 0 alone has 6%"),
    ],
)
def test_weights_that_are_worth_few_rows_warn(weights, words):
    with pytest.warns(PushforwardWarning, match=words):
        assert row_weights(weights, len(weights)) is not None


@pytest.mark.parametrize("weights", [[1.0, 2.0, 1.0], [1.0, 5.0] * 100, list(range(1, 500))])
def test_ordinary_weights_do_not_warn(weights):
    assert row_weights(weights, len(weights)) is not None  # warnings are errors here


def test_weights_say_nothing_of_a_lattice():
    """Draws by weight repeat rows, and the search for columns on a lattice reads each row once."""
    x = rows(2000)
    weights = torch.exp(1.5 * rows(2000, 1, seed=1)[:, 0])
    train, _ = open_sources(InputSpec.of(gaussian()), x, None, None, None, 0, weights)
    assert isinstance(train, ArrayRows)
    assert len(train.raw_sample(2000)[0].unique(dim=0)) < 1200
    pf.fit(gaussian(), x, weights=weights, max_steps=1, progress="silent")  # warnings are errors here
