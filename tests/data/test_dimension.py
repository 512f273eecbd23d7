"""Intrinsic dimension on manifolds whose dimension is known."""

import numpy as np
import pytest
import torch

from pushforward.data import intrinsic_dimension
from pushforward.errors import ConfigError, InputError

RNG = np.random.default_rng


def sphere(count: int, dims: int) -> np.ndarray:
    x = RNG(0).normal(size=(count, dims + 1))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def swiss_roll(count: int) -> np.ndarray:
    t, h = RNG(1).uniform((4.7, 0), (14.1, 20), (count, 2)).T
    return np.stack((t * np.cos(t), h, t * np.sin(t)), 1)


def subspace(count: int, dims: int, ambient: int) -> np.ndarray:
    rng = RNG(2)
    return rng.uniform(size=(count, dims)) @ np.linalg.qr(rng.normal(size=(ambient, dims)))[0].T


@pytest.mark.parametrize("method", ["mle", "twonn", "pca"])
@pytest.mark.parametrize(
    ("x", "dims"), [(sphere(2000, 1), 1), (sphere(2000, 2), 2), (swiss_roll(2000), 2), (subspace(2000, 3, 20), 3)],
    ids=["circle", "sphere", "swiss roll", "cube in 20 dimensions"],
)  # fmt: skip
def test_known_manifolds(method, x, dims):
    """The nearest integer is exact, so the test has no tolerance."""
    assert round(intrinsic_dimension(x, method)) == dims


def test_the_maximum_likelihood_is_unbiased_where_there_is_no_border():
    """On a circle and a sphere the error is statistical: m / sqrt(n (k - 1)) if rows were independent."""
    for dims in (1, 2):
        found = intrinsic_dimension(sphere(4000, dims))
        assert abs(found - dims) < 5 * dims / np.sqrt(4000 * 19) + 0.02 * dims  # and 2% for the ball's curvature


def test_the_estimates_are_the_sums_of_their_formulas():
    x = RNG(3).normal(size=(40, 3))
    total, inverse, ratios = 0.0, 0, []
    for row in x:
        distances = sorted(np.linalg.norm(x - row, axis=1))[1:]
        total += sum(np.log(distances[4] / distances[j]) for j in range(4))
        inverse += 4
        ratios.append(np.log(distances[1] / distances[0]))
    assert intrinsic_dimension(x, neighbors=5) == pytest.approx(inverse / total)
    ratios = np.sort(ratios)[:36]
    tail = -np.log(1 - np.arange(1, 37) / 40)
    slope = np.linalg.lstsq(ratios[:, None], tail, rcond=None)[0][0]
    assert intrinsic_dimension(x, "twonn") == pytest.approx(slope)


@pytest.mark.parametrize("method", ["mle", "twonn", "pca"])
def test_invariances(method):
    x = sphere(500, 2)
    found = intrinsic_dimension(x, method)
    turned = x @ np.linalg.qr(RNG(4).normal(size=(3, 3)))[0]
    assert intrinsic_dimension(7 * turned + 100, method) == pytest.approx(found, rel=1e-6)
    constant = np.concatenate((x, np.full((500, 2), 3.0)), 1)
    assert intrinsic_dimension(constant, method) == pytest.approx(found)
    assert intrinsic_dimension(np.concatenate((x, x[:300])), method) == pytest.approx(found)  # rows that occur twice
    assert intrinsic_dimension(x.reshape(500, 1, 3), method) == pytest.approx(found)
    assert intrinsic_dimension(torch.from_numpy(x).requires_grad_(), method) == pytest.approx(found)


def test_noise_adds_dimensions_at_its_scale():
    """A circle with noise that is larger than the distances between neighbors has two dimensions."""
    x = sphere(2000, 1) + 0.1 * RNG(5).normal(size=(2000, 2))
    assert round(intrinsic_dimension(x, "twonn")) == 2


def test_wrong_arguments_and_data():
    x = sphere(50, 2)
    with pytest.raises(ConfigError, match="method"):
        intrinsic_dimension(x, "guess")
    for wrong in (1, 2.5, "many"):
        with pytest.raises(ConfigError, match="neighbors"):
            intrinsic_dimension(x, neighbors=wrong)  # pyright: ignore
    with pytest.raises(ConfigError, match="neighbors"):
        intrinsic_dimension(x, "twonn", neighbors=5)
    with pytest.raises(InputError, match="distinct rows"):
        intrinsic_dimension(np.ones((100, 3)))
    with pytest.raises(InputError, match="finite"):
        intrinsic_dimension(np.where(x > 0.9, np.nan, x))
    with pytest.raises(InputError, match="one row"):
        intrinsic_dimension(np.ones(5))
    with pytest.raises(InputError, match="numbers"):
        intrinsic_dimension([["a", "b"]] * 30)
    assert intrinsic_dimension(x, most=30) == intrinsic_dimension(x, most=30)


def test_integers_of_numpy_and_tensors_of_any_type():
    x = torch.from_numpy(sphere(50, 2)).bfloat16()
    assert intrinsic_dimension(x, neighbors=np.int64(5)) == intrinsic_dimension(x.double(), neighbors=5)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["mle", "twonn", "pca"])
@pytest.mark.parametrize("scale", [1e-200, 1e200, 1e307])
def test_the_unit_of_the_data_does_not_matter(method, scale):
    x = sphere(400, 2)
    assert intrinsic_dimension(scale * x, method) == pytest.approx(intrinsic_dimension(x, method), rel=1e-6)


@pytest.mark.parametrize("method", ["mle", "twonn"])
def test_rows_on_a_lattice_have_no_ratios_of_distances(method):
    lattice = np.stack(np.meshgrid(np.arange(20), np.arange(20)), -1).reshape(-1, 2)
    with pytest.raises(InputError, match="add noise of the size of the rounding"):
        intrinsic_dimension(lattice, method, neighbors=2 if method == "mle" else None)
    noisy = lattice + RNG(0).uniform(-0.5, 0.5, size=lattice.shape)
    assert round(intrinsic_dimension(noisy, method)) == 2
