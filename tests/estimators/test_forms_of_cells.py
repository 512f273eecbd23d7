"""Numbers and dates in other forms, decimals, and constant columns that change."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import pushforward as pf
from pushforward.data.cells import number_cells
from pushforward.data.text import number_form
from pushforward.errors import PushforwardWarning, SchemaError, SchemaWarning

N = 400


def table(**columns: object) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame({"x": rng.normal(size=N), "y": rng.normal(size=N), **columns})


def fit(rows: pd.DataFrame, **options: object) -> pf.Guard:
    return pf.Guard(0.05, effort="fast", random_state=0, **options).fit(rows)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("{0},{1:02d}", "numbers with a decimal comma, such as '0,00'.*--decimal ','"),
        ("1.{0:03d},{1}", "numbers with a decimal comma"),
        ("€ {0}.{1}", "numbers with other signs, such as '€ 0.0'.*plain numbers"),
        ("{0}.{1} %", "numbers with other signs"),
        ("12,{0:03d}.{1}", "numbers with other signs"),
        ("1{1:02d},{0:03d}", "numbers with other signs"),
        ("10.0.{1}.{0}", "like identifiers or free text"),
        ("{0:03d} {1:04d}-{0}", "like identifiers or free text"),
    ],
    ids=["comma", "groups and comma", "euro", "percent", "groups", "thousands", "addresses", "phones"],
)
def test_numbers_of_other_forms_are_not_called_identifiers(cell, words) -> None:
    rows = table(amount=[cell.format(k, k % 97) for k in range(N)])
    with pytest.raises(SchemaError, match=f"column 'amount' has .*{words}"):
        fit(rows)
    if "identifiers" not in words:
        with pytest.raises(SchemaError, match=f"column 'amount' has .*{words}"):
            fit(rows, ignore="auto")


@pytest.mark.parametrize(
    ("cell", "other", "words"),
    [
        ("{0}.{1:02d}", "-", r"380 of these cells are numbers, and others are not, such as '-'\. Leave those empty to have numbers"),
        ("2026-01-01T{2:02d}:{3:02d}", "NaT", r"380 of these cells are dates, and others are not, such as 'NaT'\. Leave those empty"),
    ],
    ids=["number", "date"],
)  # fmt: skip
def test_cells_that_are_no_numbers_among_numbers_are_named(cell: str, other: str, words: str) -> None:
    amounts = [other if k % 20 == 7 else cell.format(k, k % 97, k // 60, k % 60) for k in range(N)]
    with pytest.raises(SchemaError, match=f"'amount' has 381 different texts in 400 rows, .*: {words}"):
        fit(table(amount=amounts))


def test_codes_of_digits_have_no_form() -> None:
    assert number_form(pa.array([f"{k:05d}" for k in range(50)])) == ("", "")
    assert number_form(pa.array(["a", "b", None])) == ("", "")


def test_dates_of_several_forms_are_warned_of() -> None:
    forms = ("2026-01-{0:02d}", "{0:02d}/01/2026", "{0:02d}.01.2026")
    rows = table(day=[forms[k % 3].format(k % 28 + 1) for k in range(N)])
    with pytest.warns(PushforwardWarning, match="column 'day' has dates as text"):
        fit(rows)


def test_decimals_are_the_nearest_numbers() -> None:
    cents = np.arange(20_000)
    decimals = pa.array(cents).cast(pa.decimal128(21, 2))
    texts = pa.array([f"{c // 100}.{c % 100:02d}" for c in cents]).cast(pa.decimal128(12, 2))
    assert (number_cells("a", pa.chunked_array([decimals])).values == cents).all()
    assert (number_cells("a", pa.chunked_array([texts])).values == cents / 100).all()
    missing = number_cells("a", pa.chunked_array([pa.array([None, 1]).cast(pa.decimal128(21, 2))])).values
    assert np.isnan(missing[0])
    assert missing[1] == 1


@pytest.mark.parametrize(("value", "other"), [(7, 8), (0.5, 0.25), (True, False)])
def test_a_changed_constant_is_warned_of(value, other) -> None:
    rows = table(constant=value)
    guard = fit(rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        guard.predict(rows)
    rows.loc[:2, "constant"] = other
    with pytest.warns(
        SchemaWarning, match=rf"column 'constant': rows have another value than {value!r}, and no row had one at fit"
    ):
        alarms = guard.predict(rows) == -1
    assert alarms[:3].all()


def test_a_usual_instant_says_so_and_is_no_second_reason() -> None:
    rng = np.random.default_rng(0)
    when = pd.Timestamp("2026-01-05") + pd.to_timedelta(rng.uniform(0, 60, N), unit="D")
    rows = table(when=when)
    guard = fit(rows)
    explanation = guard.explain(rows)
    usual = [r for i in range(N) for r in explanation.reasons(i, 3) if r.column == "when" and r.p_value >= 0.05]
    assert len(usual) > 100
    assert all(
        r.sentence.endswith("day, which is usual given the other columns.")
        for r in usual
        if "unusual" not in r.sentence
    )
    for i in range(N):
        assert all("which is usual" not in r.sentence for r in explanation.main_reasons(i)[1:] if r.column == "when")
