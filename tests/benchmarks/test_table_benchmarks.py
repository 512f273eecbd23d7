"""Rivals of the guard on tables, and the recipe of anomalies in mixed tables."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # the benchmarks are not part of the package

from benchmarks.quality import contamination, shift
from benchmarks.quality.denoising import Denoising, k_dsm, noise_levels
from benchmarks.quality.mixed import KINDS, change, encoder
from benchmarks.quality.one_class import IMAGES
from benchmarks.quality.robust_weight import VARIANTS, measure
from benchmarks.quality.table_detectors import DETECTORS
from benchmarks.quality.wide import draw, mahalanobis


def test_diffusion_time_is_the_mean_squared_distance_to_five_rows():
    rng = np.random.default_rng(0)
    train = rng.normal(size=(40, 3))
    scaled = (train - train.mean(0)) / train.std(0)
    new = rng.normal(size=(6, 3))
    squares = np.sort((((new - train.mean(0)) / train.std(0))[:, None] - scaled) ** 2 @ np.ones(3), axis=1)
    np.testing.assert_allclose(DETECTORS["dte-np"](train, 0)(new), squares[:, :5].mean(1))


def test_noise_levels_follow_the_kurtosis():
    rng = np.random.default_rng(0)
    uniform, flag = rng.uniform(-1.7, 1.7, 20_000), np.where(rng.random(20_000) < 0.5, 1.0, -1.0)
    peaked = rng.laplace(size=20_000)
    levels = noise_levels(np.stack((uniform, flag, peaked), axis=1))
    # A uniform column has kurtosis 1.8 whatever the order of its bins; a flag counts as 0.9 / 0.5.
    np.testing.assert_allclose(levels[:2], 0.5 * (1 + 0.33 * (1.8 - 3)), atol=0.02)
    assert levels[2] > levels[0]


def test_denoising_finds_far_rows():
    train = np.random.default_rng(0).normal(size=(300, 3))
    score = k_dsm(train, 0, Denoising(width=32, blocks=1, steps=150))
    assert score(train + 8).min() > np.median(score(train))
    np.testing.assert_array_equal(score(train), k_dsm(train, 0, Denoising(width=32, blocks=1, steps=150))(train))


def test_a_tie_is_not_ahead():
    areas = {"a": (0.5, 0.1 + 0.2, 0.4), "b": (0.5, 0.5, 0.6), "c": (0.5, 0.6, 0.8)}
    lines = [
        {"set": name, "seed": 0, "level": 0.0, "kNN": 0.3 if name == "a" else knn, "score": score, "score, bound 10 %": bound}
        for name, (knn, score, bound) in areas.items()
    ]  # fmt: skip
    cells = contamination.table([{**line, "level": level} for line in lines for level in contamination.LEVELS])[
        2
    ].split(" | ")
    # The scores differ from kNN by 0 (up to rounding), 0 and 10 points; with a bound by 10, 10 and 30.
    assert cells[4:] == ["+3.3 ± 3.3", "1 of 3", "+16.7 ± 6.7", "3 of 3 |"]


def test_the_guard_of_shifts_has_the_density_of_a_flow_as_its_score():
    x = np.random.default_rng(0).normal(size=(300, 1))
    flow = shift.OneFlow(steps=20).fit(x)
    grid = np.linspace(-8, 8, 2001)
    assert np.exp(flow.score_samples(grid[:, None])).sum() * (grid[1] - grid[0]) == pytest.approx(1, abs=0.02)
    assert flow.score_samples(np.zeros((1, 1))) > flow.score_samples(np.full((1, 1), 4.0))


@pytest.fixture
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame({
        "a": rng.integers(1, 50, 200).astype(float), "b": rng.normal(size=200),
        "c": rng.choice(["x", "y", "z"], 200), "d": rng.choice(["p", "q"], 200),
    }).astype({"c": object, "d": object})  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_changes_what_it_says(frame, kind):
    made = change(kind, frame, list(frame), np.random.default_rng(1))
    original = frame.iloc[np.random.default_rng(1).permutation(len(frame))[:500]].reset_index(drop=True).loc[made.index]
    differs = (made != original) & ~(made.isna() & original.isna())
    assert len(made) > 190
    assert differs.any(axis=1).all()
    counts = set(differs.sum(axis=1))
    numbers, codes = (bool(differs[columns].to_numpy().any()) for columns in (["a", "b"], ["c", "d"]))
    if kind in ("unit", "between"):
        assert not codes
        assert (made["a"] % 1 == 0).all()
    if kind == "category":
        assert not numbers
        assert set(made["c"]) <= {"x", "y", "z"}
    expected = {"unit": {1}, "category": {1}, "swap": {2}, "missing": {2}}
    assert counts <= expected.get(kind, {1, 2, 3, 4})
    assert set(made.isna().sum(axis=1)) == ({2} if kind == "missing" else {0})


def test_references_read_one_column_a_category(frame):
    train = frame.copy()
    train.loc[0, "b"] = np.nan
    encode = encoder(train)
    rows = encode(train)
    assert rows.shape == (200, 2 + 4 + 3 + 2)
    assert rows[0, 1] == pytest.approx(train["b"].mean())
    assert rows[0, 3] == 1.0
    np.testing.assert_array_equal(rows[:, 6:9].sum(1), 1.0)


def test_changes_of_a_wide_table_leave_each_column_as_it_is():
    """Every column of an anomaly is normal, and its variance is that of the loadings and of the noise."""
    train, new, changed = draw(40, 300, 4000, seed=0)
    assert (train.shape, new.shape) == ((300, 40), (4000, 40))
    loadings = np.random.default_rng(0).normal(size=(10, 40))  # these are drawn first
    expected = (loadings**2).sum(0) + 0.25
    far = mahalanobis(train, 0)
    for x in (new, *changed.values()):
        # The variance of 4,000 normal numbers has a relative standard error of sqrt(2 / 4000).
        np.testing.assert_allclose(x.var(0) / expected, 1.0, atol=5 * np.sqrt(2 / 4000))
    for kind in ("one column", "five columns", "half"):
        assert np.median(far(changed[kind])) > np.median(far(new))
    # Both kinds change the same rows, so they differ in at most six columns of forty.
    assert ((changed["one column"] != changed["five columns"]).sum(1) <= 6).all()


def test_tasks_of_pixels_are_the_stated_ones():
    assert len(IMAGES) == len(set(IMAGES)) == 12
    assert {task.rsplit(" ", 1)[1] for task in IMAGES} == {"1", "4", "7"}


def test_the_chosen_share_of_robust_weight_is_that_of_the_score():
    """The benchmark's own rule, and the score that is fitted, have the same AUROC on the same rows."""
    from pushforward.detection import auroc
    from pushforward.detection.table_score import fit_table_score

    rng = np.random.default_rng(0)
    train, normal, odd = rng.normal(size=(300, 4)), rng.normal(size=(200, 4)), 1.7 * rng.normal(size=(200, 4))
    found = measure(train, normal, odd, 0)
    assert set(found) == {*VARIANTS, "kNN (5)"}
    score = fit_table_score(train)
    expected = auroc(score.score(normal), score.score(odd))
    assert found["half, six of each half (chosen)"] == pytest.approx(expected, abs=1e-9)
