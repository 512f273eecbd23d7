"""Columns of text that are better read in another way, or left out, are named at fit."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest

import pushforward as pf
from pushforward.data import Schema
from pushforward.errors import PushforwardWarning
from pushforward.estimators.text_columns import warn_of_texts

RNG = np.random.default_rng(0)
NUMBERS = RNG.normal(20, 1, 600).round(1)


def warned(cells) -> list[str]:
    """The warnings about a column ``a`` of these cells."""
    schema, encoded = Schema.infer_encode(
        pd.DataFrame({"a": np.asarray(cells, dtype=object), "b": RNG.normal(size=len(cells))})
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_texts(schema, encoded)
    return [str(each.message) for each in caught]


def with_cells(cell: str, count: int = 2) -> list[str]:
    """Numbers as text, the first ones replaced by another cell."""
    return [cell] * count + [f"{v:.1f}" for v in NUMBERS[count:]]


@pytest.mark.parametrize("cell", ["err", "-", "#DIV/0!", "<18.5"])
def test_a_few_texts_among_numbers_are_named(cell: str) -> None:
    (text,) = warned(with_cells(cell))
    assert f"column 'a' has 598 numbers and 2 other texts, such as {cell!r}" in text
    assert "make the other cells missing" in text


@pytest.mark.parametrize(
    ("form", "advice"),
    [
        ("{:.1f}%", "'20.1%'"), ("\u20ac {:.1f}", "plain numbers"), ("1,{:05.1f}", "plain numbers"), (">{:.1f}", "plain numbers"),
        ("{:.1f}", ""),  # codes that the user wants as text
    ],
)  # fmt: skip
def test_numbers_with_other_signs_are_named(form: str, advice: str) -> None:
    found = warned([form.format(v) for v in np.r_[[20.1] * 50, NUMBERS]])
    assert [advice in text and "numbers with other signs" in text for text in found] == [True] * bool(advice)


def test_a_decimal_comma_is_named_with_the_option() -> None:
    (text,) = warned([f"{v:.1f}".replace(".", ",") for v in NUMBERS])
    assert "numbers with a decimal comma" in text
    assert "--decimal ','" in text


def test_values_of_one_row_each_are_named_with_their_number() -> None:
    cells = [f"shop {k}" for k in RNG.integers(0, 20, 540)] + [f"rare {k}" for k in range(60)]
    (text,) = warned(cells)
    assert "60 values that one of 600 rows has, so about 10% of new rows will have a new value" in text
    assert "ignore=['a']" in text
    assert not warned([f"shop {k}" for k in RNG.integers(0, 20, 600)])


@pytest.mark.parametrize(
    "cells",
    [
        ["red", "green"] * 300,
        [str(k) for k in RNG.integers(0, 12, 590)] + ["none"] * 10,  # codes and one that is none
        [f"M{k}" for k in RNG.integers(0, 30, 600)],
        [f"{k:05d}" for k in RNG.integers(0, 30, 600)],
    ],
)  # fmt: skip
def test_ordinary_categories_are_not_named(cells: list[str]) -> None:
    assert not warned(cells)


def test_anomalies_are_found_beside_a_column_with_many_rare_values() -> None:
    """A new value is no news where a ninth of the rows has one, so it must not hide what the other columns show."""

    def table(n: int, seed: int) -> pd.DataFrame:
        rng = np.random.default_rng(seed)
        income = rng.lognormal(10, 0.5, n)
        part = rng.uniform(0.1, 0.5, n)
        shop = [f"M{k}" for k in np.minimum(rng.zipf(1.4, n), 20000)]
        return pd.DataFrame(
            {
                "income": income.round(),
                "loan": (income * part).round(),
                "rate": (3 + 10 * part + rng.normal(0, 0.3, n)).round(2),
                "shop": shop,
            }
        )

    with pytest.warns(PushforwardWarning, match=r"'shop' has .* that one of 1500 rows has"):
        guard = pf.Guard(alpha=0.05, effort="fast", random_state=0).fit(table(1500, 0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        usual, odd = table(600, 1), table(300, 2).assign(rate=lambda t: t["rate"] + 4)
        assert (guard.predict(odd) == -1).mean() > 0.85  # 0.1 before
        assert (guard.predict(usual) == -1).mean() < 0.09
        explained = guard.explain(odd)
        first = [explained.reasons(i, 1)[0].column for i in np.flatnonzero(guard.predict(odd) == -1)]
        assert first.count("rate") + first.count("loan") > 0.6 * len(first)
        named = guard.explain(odd.assign(shop="Opera")).reasons(0, None)
        (shop,) = (reason for reason in named if reason.column == "shop")
        assert re.search(
            r"shop is 'Opera', which no training row has; they have .*; about 1\d % of normal rows have a new one\.$",
            shop.sentence,
        )
        new = ~usual["shop"].isin(set(table(1500, 0)["shop"]))
        assert np.median(guard.anomaly_score(usual[new])) < np.quantile(guard.calibrator_.scores, 0.95)


@pytest.mark.parametrize("step", [2, "gaps", "instants"])
def test_integers_that_grow_from_row_to_row_are_said_to(step) -> None:
    rng = np.random.default_rng(0)
    gaps = {2: np.full(300, 2), "gaps": rng.integers(1, 4, 300), "instants": rng.integers(1, 9000, 300)}[step]
    frame = pd.DataFrame({"id": 1000 + np.cumsum(gaps), "x": rng.normal(size=300), "y": rng.normal(size=300)})
    with pytest.warns(PushforwardWarning, match=r"'id' grows from row to row.*ignore=\['id'\].*time='id'"):
        pf.Guard(0.05, effort="fast", random_state=0).fit(frame)
    with pytest.warns(PushforwardWarning, match="set aside: 'id' grows from row to row"):
        guard = pf.Guard(0.05, effort="fast", ignore="auto", random_state=0).fit(frame)
    assert guard.ignored_ == ("id",)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pf.Guard(0.05, effort="fast", random_state=0).fit(frame.sample(frac=1, random_state=0).assign(id=gaps))
        pf.Guard(0.05, effort="fast", random_state=0).fit(frame, time="id")
