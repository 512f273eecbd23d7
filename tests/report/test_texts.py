"""Texts of any content stay text, and numbers are short."""

import math

import numpy as np
import pyarrow as pa
import pytest

from pushforward.data import Schema
from pushforward.detection.column_summary import ColumnSummaries
from pushforward.estimators.guard_facts import promise_sentence
from pushforward.report.reasons import column_nats, reason, usual
from pushforward.report.text import (
    cell_text,
    confidence,
    figure,
    markdown,
    number_text,
    percent,
    plural,
    promised_rate,
    visible,
)


def summary(values):
    schema = Schema.infer({"x": values})
    return ColumnSummaries.fit(schema, schema.encode({"x": values})[0]).columns(schema)[0]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (-3, "−3"), (1e6, "1,000,000"), (0.12345, "0.1235"), (-1.5e-9, "−1.5e−9"), (3.1e20, "3.1e20"), (98765.43, "98,765.4"),
     (math.nan, "–"), (None, "–"), (-math.inf, "−∞")],
)  # fmt: skip
def test_figures(value, text):
    assert figure(value) == text


def test_a_small_share_never_reads_zero():
    assert percent(0.0) == "0.00%"
    assert [percent(f) for f in (4e-6, 1.26e-5, 7e-5)] == ["0.0004%", "0.0013%", "0.007%"]
    assert percent(1e-13) == "<0.0000000001%"
    assert [percent(f, 0) for f in (0.00999, 0.0049, 0.0)] == ["1%", "0.49%", "0%"]
    assert percent(1e-4) == "0.01%"
    assert percent(None) == "–"
    assert plural(1, "class", "classes") == "1 class"
    assert plural(2000, "class", "classes") == "2,000 classes"


def test_a_promise_is_not_rounded_to_another_one():
    assert [promised_rate(rate) for rate in (0.05, 0.1, 1 / 3, 0.00125, 0.00375, 5e-5, 1e-9)] == [
        "5.00%", "10.00%", "33.33%", "0.125%", "0.375%", "0.005%", "0.0000001%",
    ]  # fmt: skip
    assert [confidence(delta) for delta in (0.05, 0.1, 0.025, 0.001, 1e-6)] == [
        "95%",
        "90%",
        "97.5%",
        "99.9%",
        "99.9999%",
    ]
    kept, sentence = promise_sentence(5e-5, "pac", 0.001, 400_000, 1e-5)
    assert kept
    assert sentence.startswith(
        "With a probability of 99.9% over the calibration rows, this guard raises a false alarm for at most 0.005% of"
    )
    assert "<0.0" not in sentence


@pytest.mark.parametrize("letter", ["\0", "\x1b", "\n", "\u202e", "\u2066", "\ud800", "\u2028", "\ufeff", "\U000e0001"])
def test_nothing_is_invisible(letter):
    shown = visible(f"a{letter}b")
    assert letter not in shown
    shown.encode()
    assert shown[0] == "a"
    assert shown[-1] == "b"


def test_long_texts_are_cut():
    assert visible("x" * 500) == "x" * 119 + "…"


def test_markdown_of_any_text_is_that_text():
    hostile = "a|b\n# head [x](http://evil.example) <script> `c` *d* www.evil.example $e$ ~f~ &amp; \\"
    written = markdown(hostile)
    for token in ("\n", "http://", "www.e"):
        assert token not in written
    for letter in "|[]<>`*#$~&":
        assert all(written[k - 1] == "\\" for k, found in enumerate(written) if found == letter)


def test_cells_are_shown_in_the_units_of_the_data():
    dates = summary(np.array(["2020-01-01", "2020-03-01"], dtype="datetime64[D]"))
    assert number_text(dates, dates.edges[0]) == "2020-01-01"
    assert number_text(dates, 1e15).endswith(" s")  # no date
    waits = summary(np.array([-7200, 3600], dtype="timedelta64[s]"))
    assert [number_text(waits, v) for v in (-5.0, 90.0)] == ["−0:00:05", "0:01:30"]
    flags = summary([True, False, True])
    assert [number_text(flags, v) for v in (0.0, 1.0, math.inf)] == ["false", "true", "neither true nor false"]
    colors = summary(["red", "red", "blue"])
    assert cell_text(colors, "green\n", math.inf) == "green\\n"
    assert cell_text(colors, None, math.nan) == "missing"
    assert usual(colors) == "red (66.7%), blue (33.3%)"


def test_large_integers_of_a_narrow_range_keep_their_digits():
    found = summary(2**53 - 20 + np.arange(20))
    assert usual(found) == "9,007,199,254,740,972 to 9,007,199,254,740,991"
    assert number_text(summary(np.array([0, 10**16])), 1e16) == "1e16"


def test_very_small_and_very_large_numbers_are_short_and_not_zero():
    numbers = np.random.default_rng(0).normal(size=200)
    tiny, huge = summary(3.2e-14 + 1e-18 * numbers), summary(1e300 * (1 + 1e-8 * numbers))
    assert number_text(tiny, 3.2001e-14) == "3.2001e−14"
    assert number_text(huge, 1.00000001e300) == "1.00000001e300"
    unit = summary(numbers)
    assert [number_text(unit, v) for v in (3.4028235e38, -1e30, 1e18)] == [
        "3.4028235e38", "−1e30", "1,000,000,000,000,000,000",
    ]  # fmt: skip
    wide = summary(np.r_[-1.7e308, 1.7e308, numbers])  # the width of the range is infinite
    assert number_text(wide, 5.0) == "5"
    assert np.isfinite(column_nats(wide, np.array([5.0, 1.75e308]))).all()


@pytest.mark.parametrize(
    ("value", "finding"),
    [(-1.0, "below every training row; the smallest is 0"), (100.5, "above every training row; the largest is 100"),
     (0.5, "lower than in 99% of the training rows"), (100.0, "higher than in 99% of the training rows"),
     (50.0, "usual by itself, and unusual beside the other columns"), (math.nan, "missing, and no training row was")],
)  # fmt: skip
def test_findings_of_numbers(value, finding):
    found = reason(summary(np.arange(101.0)), 3.0, value, value)
    assert found["finding"] == finding
    assert found["usual"] == "1 to 99"
    assert found["column"] == "x"


def test_findings_of_categories():
    letters = summary(["a"] * 99 + ["b"])
    assert reason(letters, 1.0, "c", math.inf)["finding"] == "no training row had this value"
    assert reason(letters, 1.0, "b", 1.0)["finding"] == "1.00% of the training rows have this value"
    sparse = summary(pa.array(["a"] * 99 + ["b"] + [None] * 100))
    assert reason(sparse, 1.0, "b", 1.0)["finding"] == "0.50% of the training rows have this value"
    hidden = reason(letters, math.inf, "secret", math.inf, values=False)
    assert "secret" not in str(hidden)
    assert hidden["nats"] is None


def test_nats_of_a_column_by_itself():
    numbers = column_nats(summary(np.arange(101.0)), np.array([50.0, 0.0, 101.0, 1000.0, np.nan]))
    assert numbers[0] == pytest.approx(0.0, abs=0.02)
    assert numbers[1] == pytest.approx(-math.log(2 / 101))
    assert numbers[2] > -math.log(1 / 103)
    assert numbers[3] > numbers[2] > numbers[1]
    assert numbers[4] == pytest.approx(math.log(103))
    letters = column_nats(summary(["a"] * 3 + ["b"]), np.array([0.0, 1.0, np.inf]))
    assert letters == pytest.approx([-math.log(0.75), -math.log(0.25), math.log(6)])
