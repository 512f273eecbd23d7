"""`FlowDensity`: units, file, options."""

import numpy as np
import pytest
from scipy import stats

from pushforward.errors import ConfigError, InputError, StorageError
from pushforward.estimators import FlowDensity


def test_density_is_in_the_units_of_x() -> None:
    x = 1e9 + 1000 * np.random.default_rng(0).normal(size=(2000, 2))
    density = FlowDensity("realnvp", max_steps=200, random_state=0).fit(x)
    new = 1e9 + 1000 * np.random.default_rng(1).normal(size=(2000, 2))
    truth = stats.norm(1e9, 1000).logpdf(new).sum(1).mean()
    assert density.score_samples(new).mean() == pytest.approx(truth, abs=0.05)
    assert density.score(new) == pytest.approx(density.score_samples(new).sum())
    drawn = density.sample(2000, random_state=0)
    np.testing.assert_allclose(drawn.mean(0), 1e9, atol=150)
    np.testing.assert_allclose(drawn.std(0), 1000, rtol=0.15)


def test_file_round_trip(tmp_path) -> None:
    x = np.random.default_rng(0).normal(size=(100, 2))
    density = FlowDensity("maf", model_options={"layers": 2, "hidden": (16,)}, max_steps=5, random_state=0).fit(x)
    density.save(tmp_path / "d.safetensors")
    again = FlowDensity.load(tmp_path / "d.safetensors")
    np.testing.assert_array_equal(again.score_samples(x), density.score_samples(x))
    with pytest.raises(StorageError, match="FlowDensity"):
        from pushforward.io import load

        load(tmp_path / "d.safetensors")


@pytest.mark.parametrize(
    "options", [{"model": "glow"}, {"model_options": {"depth": 3}}, {"max_time": "soon"}, {"learning_rate": -1.0}]
)
def test_impossible_options(options: dict) -> None:
    with pytest.raises(ConfigError):
        FlowDensity(**options).fit(np.zeros((30, 2)))


@pytest.mark.parametrize(
    "x", [np.full((30, 2), np.nan), np.full((30, 2), np.inf), np.zeros(3), np.zeros((1, 2)), [["a"]] * 30]
)
def test_unreadable_tables(x) -> None:
    with pytest.raises(InputError):
        FlowDensity(max_steps=5).fit(x)
