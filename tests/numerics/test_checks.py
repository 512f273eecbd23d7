"""Checks of arguments: accepted values, refused values, and messages."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pushforward.errors import ConfigError
from pushforward.numerics import check_choice, check_integer, check_number, check_positive, check_widths


class TestInteger:
    @pytest.mark.parametrize("value", [1, 7, np.int64(7), np.uint8(1)])
    def test_passes_as_a_plain_integer(self, value):
        assert check_integer("k", value) == value
        assert type(check_integer("k", value)) is int

    @pytest.mark.parametrize("value", [0, -1, 1.0, True, "1", None, (1,), np.bool_(True), torch.tensor(1)])
    def test_refused(self, value):
        with pytest.raises(ConfigError, match=r"^k must be an integer of at least 1; got "):
            check_integer("k", value)

    def test_limits(self):
        assert check_integer("k", -5, -5, most=3) == -5
        for value in (-6, 4):
            with pytest.raises(ConfigError, match=rf"^k must be an integer from -5 to 3; got {value}\.$"):
                check_integer("k", value, -5, most=3)
        assert check_integer("seed", -(10**30), None) == -(10**30)
        with pytest.raises(ConfigError, match=r"^seed must be an integer; got 0\.5\.$"):
            check_integer("seed", 0.5, None)

    def test_none(self):
        assert check_integer("k", None, optional=True) is None
        with pytest.raises(ConfigError, match=r"^k must be an integer of at least 2, or None; got 1\.$"):
            check_integer("k", 1, 2, optional=True)


class TestNumber:
    @pytest.mark.parametrize(
        ("closed", "allowed", "interval"),
        [("neither", (), r"\(0, 1\)"), ("left", (0,), r"\[0, 1\)"), ("right", (1,), r"\(0, 1\]"), ("both", (0, 1), r"\[0, 1\]")],
    )  # fmt: skip
    def test_ends(self, closed, allowed, interval):
        assert check_number("alpha", 0.25, 0, 1, closed=closed) == 0.25
        for end in (0, 1, 0.0, 1.0):
            if end in allowed:
                assert check_number("alpha", end, 0, 1, closed=closed) == end
            else:
                with pytest.raises(ConfigError, match=rf"^alpha must be a number in {interval}; got {end}\.$"):
                    check_number("alpha", end, 0, 1, closed=closed)

    @pytest.mark.parametrize("value", [-0.1, 1.5, math.nan, math.inf, True, "0.5", None, [0.5]])
    def test_refused(self, value):
        with pytest.raises(ConfigError, match="alpha must be a number in"):
            check_number("alpha", value, 0, 1, closed="both")

    def test_numbers_of_numpy_and_none(self):
        assert type(check_number("alpha", np.float32(0.5), 0, 1)) is float
        assert check_number("alpha", None, 0, 1, optional=True) is None
        with pytest.raises(ConfigError, match=r"in \(0, 1\), or None; got 2"):
            check_number("alpha", 2, 0, 1, optional=True)


class TestPositive:
    def test_passes(self):
        assert check_positive("scale", 1e-300) == 1e-300
        assert type(check_positive("scale", 2)) is float
        assert check_positive("scale", 0, zero=True) == 0.0
        assert check_positive("scale", None, optional=True) is None

    @pytest.mark.parametrize("value", [0, -1.0, math.inf, math.nan, True, "1", None])
    def test_refused(self, value):
        with pytest.raises(ConfigError, match=r"^scale must be positive and finite; got "):
            check_positive("scale", value)

    def test_refused_with_zero_allowed(self):
        with pytest.raises(ConfigError, match=r"^scale must be at least 0 and finite, or None; got -1\.$"):
            check_positive("scale", -1, zero=True, optional=True)


class TestChoice:
    def test_passes(self):
        assert check_choice("order", "glow", ("glow", "checkerboard")) == "glow"
        assert check_choice("resume", "auto", (True, False, "auto")) == "auto"
        assert check_choice("solver", "rk4", {"rk4": 1}) == "rk4"

    @pytest.mark.parametrize("value", ["Glow", "", None, 0, ["glow"], np.zeros(3)])
    def test_refused(self, value):
        with pytest.raises(ConfigError, match=r"^order must be 'glow', 'checkerboard' or 'raster'; got "):
            check_choice("order", value, ("glow", "checkerboard", "raster"))

    def test_one_is_not_true(self):
        with pytest.raises(ConfigError, match=r"^resume must be True, False or 'auto'; got 1\.$"):
            check_choice("resume", 1, (True, False, "auto"))

    def test_a_single_choice(self):
        with pytest.raises(ConfigError, match=r"^order must be 'glow'; got 'x'\.$"):
            check_choice("order", "x", ("glow",))


class TestWidths:
    def test_passes_as_a_tuple(self):
        assert check_widths("hidden", [64, 32]) == (64, 32)
        assert check_widths("hidden", ()) == ()
        assert check_widths("hidden", (64, np.int64(64)), equal=True) == (64, 64)

    @pytest.mark.parametrize("value", [64, (64, 0), (64, 1.0), (True,), "64", None])
    def test_refused(self, value):
        with pytest.raises(ConfigError, match=r"^hidden must be a tuple of positive integers, such as "):
            check_widths("hidden", value)

    @pytest.mark.parametrize("value", [(), (64, 32)])
    def test_widths_that_differ(self, value):
        with pytest.raises(ConfigError, match=r"^hidden must be widths that are all equal, .* in a residual network"):
            check_widths("hidden", value, equal=True)


@pytest.mark.parametrize("value", [10**400, -(10**400)])
def test_integers_that_no_float_holds_are_refused(value):
    with pytest.raises(ConfigError, match=r"^scale must be positive and finite; got -?1000"):
        check_positive("scale", value)
    with pytest.raises(ConfigError, match=r"^alpha must be a number in \(0, 1\); got -?1000"):
        check_number("alpha", value, 0, 1)
