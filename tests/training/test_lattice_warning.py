"""Training a plain density on values of a lattice warns once; continuous data and dequantized chains do not."""

from __future__ import annotations

import linecache
import re
import warnings

import numpy as np
import pytest
import torch

import pushforward as pf
from pushforward import distributions, models, transforms
from pushforward.errors import PushforwardWarning
from pushforward.training import fit

RNG = np.random.default_rng(0)
REAL = RNG.normal(size=(600, 2))
MIXED = np.column_stack([RNG.normal(size=600), RNG.poisson(4.0, 600)])


def train(model, x) -> list[warnings.WarningMessage]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(model, x, max_steps=2, progress="silent")
    return caught


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (MIXED, r"column 1 lies on a lattice with steps of 1 \(\d+ distinct values in 540 rows\), and"),
        (RNG.integers(0, 3, size=(600, 2)), r"column 0 .* steps of 1 \(3 distinct values in 540 rows\) \(and 1 other"),
        (np.round(REAL, 1), r"column 0 lies on a lattice with steps of 0.1 "),
        (RNG.integers(0, 2, size=(600, 2)) * np.pi, r"steps of 3.14159 \(2 distinct values"),
    ],
)
def test_one_warning_names_the_column_and_what_to_do(x, text: str) -> None:
    (warning,) = train(models.NICE(2), x)
    assert warning.category is PushforwardWarning
    assert "fit(model, x" in linecache.getline(warning.filename, warning.lineno)  # the line of the caller
    assert re.search(text, str(warning.message)), str(warning.message)
    for remedy in ("spike", "LatticeDequantize", "Jitter", "pf.Guard(density=True)"):
        assert remedy in str(warning.message)


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (
            np.maximum(REAL, 0.0),
            r"column 0 is 0 in 2\d\d of 540 rows, .* model the rows with and without this value separately",
        ),
        (np.column_stack([REAL[:, 0], np.full(600, 3.0)]), r"column 1 is 3 in 540 of 540 rows, .* leave it out, add"),
        (np.where(np.arange(1200).reshape(600, 2) % 15 == 0, -1.5, REAL), r"column 0 is -1\.5 in \d\d of 540 rows"),
    ],
)
def test_a_value_that_fills_a_part_of_a_column_is_named(x, text: str) -> None:
    (warning,) = train(models.NICE(2), x)
    assert "fit(model, x" in linecache.getline(warning.filename, warning.lineno)
    assert re.search(text, str(warning.message)), str(warning.message)
    assert train(models.Flow(transforms.Jitter(2, std=0.1), distributions.Normal(2)), x) == []


@pytest.mark.parametrize(
    "x",
    [
        REAL,
        np.vstack([REAL, np.full((9, 2), 0.5)]),
        REAL.astype(np.float32),
        REAL.astype(np.float16),
        REAL[RNG.integers(0, 600, 600)],  # drawn with replacement: ties, and no lattice
        1e6 * REAL,
        np.exp(REAL),
        RNG.integers(0, 10**6, size=(600, 2)),  # hardly a value repeats
        torch.rand(600, 2),
    ],
    ids=[
        "float64",
        "a few equal rows",
        "float32",
        "float16",
        "ties",
        "large",
        "skew",
        "wide integers",
        "uniform",
    ],
)
def test_continuous_data_do_not_warn(x) -> None:
    assert train(models.NICE(2), x) == []


@pytest.mark.parametrize(
    ("first", "base"),
    [
        (lambda: transforms.UniformDequantize(2, 3), distributions.Uniform),
        (lambda: transforms.LatticeDequantize(2, columns=(0, 1)), distributions.Normal),
        (lambda: transforms.Jitter(2), distributions.Normal),
    ],
    ids=["uniform", "lattice", "jitter"],
)
def test_dequantization_and_jitter_do_not_warn(first, base) -> None:
    model = models.Flow(transforms.Chain(first(), transforms.Affine(2, trainable=True)), base(2))
    assert train(model, RNG.integers(0, 3, (300, 2))) == []


@pytest.mark.parametrize("make", [models.AutoEncoder, models.VAE])
def test_models_that_fit_no_spike_do_not_warn(make) -> None:
    assert train(make(2, latent=1, hidden=(8,)), MIXED) == []


def test_the_density_of_a_guard_treats_such_columns_and_does_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pf.Guard(0.1, density=True, n_estimators=1, max_steps=2, random_state=0).fit(MIXED)
