"""Lattices are found whatever their step, and a continuous column never has one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pushforward.data import detect_lattice
from pushforward.data.lattice import MAX_CELLS, integer_lattice


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("step", [1.0, 2.0, 0.5, 0.1, 0.25, 0.003, 1 / 3, np.pi, 7e-5, 1e6])
@pytest.mark.parametrize("origin", [0.0, -3.7, 12.345])
def test_the_step_is_found(step, origin):
    ticks = rng().integers(0, 60, 500)
    ticks[:3] = (0, 1, 59)
    found = detect_lattice(origin + step * ticks)
    assert found is not None
    assert found[0] == pytest.approx(origin, abs=1e-9 * (abs(origin) + step))
    assert found[1] == pytest.approx(step, rel=1e-9)


@pytest.mark.parametrize("digits", [17, 12, 9])
def test_standardized_integers_written_with_few_digits_are_found(digits):
    ticks = rng().integers(0, 40, 2000)
    written = [float(f"{value:.{digits}g}") for value in (ticks - ticks.mean()) / ticks.std()]
    found = detect_lattice(np.array(written))
    assert found is not None
    assert found[1] == pytest.approx(1 / ticks.std(), rel=1e-6)


def test_single_precision_images_are_found():
    found = detect_lattice((rng().integers(0, 256, 3000) / 255).astype(np.float32))
    assert found is not None
    assert found[1] == pytest.approx(1 / 255, rel=1e-5)


def test_the_largest_step_is_taken():
    assert detect_lattice(np.array([10, 30, 50, 10, 30])) == (10.0, 20.0)


def test_missing_and_infinite_values_are_ignored():
    assert detect_lattice(np.array([np.nan, 0.1, 0.2, 0.1, 0.5, np.inf, 0.2])) == (0.1, 0.1)


@given(seed=st.integers(0, 10_000), kind=st.sampled_from(["normal", "uniform", "cauchy", "exponential"]))
@settings(max_examples=60, deadline=None)
def test_a_continuous_column_has_no_lattice(seed, kind):
    generator = rng(seed)
    draw = {
        "normal": generator.normal,
        "uniform": generator.random,
        "cauchy": generator.standard_cauchy,
        "exponential": generator.exponential,
    }[kind]
    values = draw(size=400)
    assert detect_lattice(values) is None
    assert detect_lattice(values.astype(np.float32)) is None


@given(seed=st.integers(0, 10_000), single=st.booleans())
@settings(max_examples=60, deadline=None)
def test_repeated_rows_of_a_continuous_column_have_no_lattice(seed, single):
    values = np.repeat(rng(seed).normal(size=rng(seed).integers(4, 60)), 5)
    assert detect_lattice(values.astype(np.float32) if single else values) is None


@pytest.mark.parametrize("values", [np.log1p(rng().integers(0, 50, 500)), np.repeat([0, 1, np.pi], 100)])
def test_ties_off_a_lattice(values):
    assert detect_lattice(values) is None


def test_without_ties_there_is_nothing_to_dequantize():
    assert detect_lattice(np.arange(0, 50, 0.5)) is None


def test_too_many_cells_are_continuous():
    wide = np.array([0.0, 1.0, 2.0 * MAX_CELLS])
    assert detect_lattice(np.repeat(wide, 5)) is None
    assert integer_lattice(wide) is None
    assert integer_lattice(np.array([0.0, MAX_CELLS])) == (0.0, float(MAX_CELLS))


@pytest.mark.parametrize("values", [[], [1.0], [2.0, 2.0, 2.0], [np.nan, np.nan], [1e308, -1e308, 1e308]])
def test_too_few_values(values):
    assert detect_lattice(np.array(values)) is None


@given(
    origin=st.floats(-1e3, 1e3), step=st.floats(1e-3, 1e3),
    ticks=st.lists(st.integers(0, 200), min_size=3, max_size=60),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_every_value_lies_on_the_lattice_that_is_found(origin, step, ticks):
    values = np.repeat(origin + step * np.array(ticks), 2)
    found = detect_lattice(values)
    if len(set(ticks)) < 2:
        return
    assert found is not None or np.unique(values).size < 4  # three values may fit a lattice by chance
    if found is not None:
        ticks_found = (values - found[0]) / found[1]
        assert np.abs(ticks_found - np.rint(ticks_found)).max() < 1e-3
        assert found[1] >= step * 0.999 * np.gcd.reduce(np.diff(np.unique(ticks)))
