"""Training a plain density on columns of which one follows from others warns once; other columns do not."""

from __future__ import annotations

import linecache
import re
import time
import warnings

import numpy as np
import pytest
import torch

from pushforward import distributions, models, transforms
from pushforward.errors import PushforwardWarning
from pushforward.training import fit
from pushforward.training.dependent_columns import dependent_columns

RNG = np.random.default_rng(0)
A, B, C = RNG.normal(size=(3, 600))
SHARES = RNG.dirichlet(np.ones(4), 600)


def train(model, x) -> list[warnings.WarningMessage]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(model, x, max_steps=2, progress="silent")
    return caught


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ((A, B, A), "columns 0 and 2 are equal in all of 540 rows"),
        ((A, B, A, A), "columns 0 and 2 are equal"),
        ((A, 1.8 * A + 32, B), "columns 0 and 1 are linear functions of each other"),
        ((B, A, -A), "columns 1 and 2 are linear functions of each other"),
        ((1e3 + A, 1e6 * A), "columns 0 and 1 are linear functions of each other"),
        ((A, B, C, A + B), "columns 0, 1 and 3 are linearly dependent: one is a sum of multiples of the others"),
        (tuple(SHARES.T), "columns 0, 1, 2 and 3 are linearly dependent"),
        ((*RNG.normal(size=(8, 600)), SHARES[:, 0] - SHARES[:, 0]), None),
    ],
    ids=["equal", "thrice", "units", "sign", "offset", "sum", "shares", "constant"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_warning_names_the_columns_and_what_to_do(columns, text, dtype) -> None:
    x = torch.from_numpy(np.column_stack(columns)).to(dtype)
    model = models.NICE(x.shape[1]).to(dtype)
    if text is None:  # a constant column has a warning of its own
        assert dependent_columns(model, x) is None
        return
    (warning,) = train(model, x)
    assert warning.category is PushforwardWarning
    assert "fit(model, x" in linecache.getline(warning.filename, warning.lineno)  # the line of the caller
    assert re.search(text, str(warning.message)), str(warning.message)
    for remedy in ("spike", "leave one of these columns out", "transforms.Jitter"):
        assert remedy in str(warning.message)


def test_many_columns_are_not_all_named() -> None:
    x = torch.from_numpy(RNG.dirichlet(np.ones(9), 600)).float()
    (warning,) = train(models.NICE(9), x)
    assert "columns 0, 1, 2, 3, 4, 5 and 3 others are linearly dependent" in str(warning.message)


@pytest.mark.parametrize(
    "x",
    [
        np.column_stack([A, A + 1e-3 * B]),
        np.column_stack([A + B, A - B, A + 1e-4 * C]),
        np.column_stack([A, A**2, A**3, A**4]),
        np.column_stack([A, np.abs(A)]),
        1e4 + np.column_stack([A, A + 1e-2 * B]),
        RNG.normal(size=(20, 15)),  # too few rows to say
        RNG.normal(size=(600, 40)),
    ],
    ids=["close", "close to a plane", "powers", "function", "offset", "few", "wide"],
)
def test_other_columns_do_not_warn(x) -> None:
    assert train(models.NICE(x.shape[1]), x) == []


def test_images_jitter_and_models_without_a_density_do_not_warn() -> None:
    image = np.column_stack([A, A, B, C]).reshape(-1, 1, 2, 2)
    assert (
        train(models.Flow(transforms.Affine((1, 2, 2), trainable=True), distributions.Normal((1, 2, 2))), image) == []
    )
    x = np.column_stack([A, A])
    jitter = transforms.Chain(transforms.Jitter(2, std=0.1), transforms.Affine(2, trainable=True))
    assert train(models.Flow(jitter, distributions.Normal(2)), x) == []
    for make in (models.AutoEncoder, models.VAE):
        assert train(make(2, latent=1, hidden=(8,)), x) == []


def test_it_is_cheap() -> None:
    x = torch.randn(10_000, 250)
    x[:, 200] = x[:, 3]
    model = models.NICE(250, hidden=(8,))
    began = time.perf_counter()
    assert dependent_columns(model, x) == ([3, 200], "are equal")
    assert time.perf_counter() - began < 10  # 0.1 s on an idle machine
    assert dependent_columns(models.NICE(300, hidden=(8,)), torch.zeros(20, 300)) is None
