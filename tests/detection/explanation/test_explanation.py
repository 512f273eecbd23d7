"""The explanation of a table: order, sentences, records, table, text, HTML and picture."""

import datetime
import json
import math
import warnings

import matplotlib
import numpy as np
import pandas as pd
import pytest

import pushforward as pf
from pushforward.data import Schema
from pushforward.data.column import Column
from pushforward.detection.explanation import CELL_KINDS, Explanation
from pushforward.detection.explanation.reason import plain, sentence, text
from pushforward.errors import ConfigError, SchemaWarning

matplotlib.use("Agg")


def frame(n: int = 500, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    load = rng.normal(size=n)
    return pd.DataFrame({
        "temperature": 27 + 4 * load + 0.3 * rng.normal(size=n),
        "load": load,
        "color": rng.choice(["red", "blue"], n),
        "jobs": rng.poisson(5, n),
        "unit": 7,
        "level": np.where(rng.random(n) < 0.2, np.nan, rng.normal(size=n)),
        "on": rng.random(n) < 0.9,
    })  # fmt: skip


@pytest.fixture(scope="module")
def guard() -> pf.Guard:
    return pf.Guard(alpha=0.05, effort="fast", random_state=0).fit(frame())


def explained(guard: pf.Guard, rows: pd.DataFrame) -> Explanation:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SchemaWarning)
        return guard.explain(rows)


def test_a_sensor_that_jumps_is_named_with_its_usual_range(guard: pf.Guard) -> None:
    """What a user wants to read: the value, and what it should have been given the other columns."""
    rows = frame(5, seed=1)
    rows.loc[2, "temperature"] = 81.2
    assert guard.predict(rows)[2] == -1
    reason = explained(guard, rows).reasons(2)[0]
    assert (reason.row, reason.column, reason.kind, reason.value) == (2, "temperature", "number", 81.2)
    low, high = reason.usual
    expected = 27 + 4 * rows.loc[2, "load"]
    assert low < expected < high
    assert high - low < 3  # the range of the column alone is 16
    assert reason.p_value < 0.01
    assert reason.sentence.startswith("temperature is 81.2; given the other columns, 95 % of normal rows are between ")
    assert str(reason) == reason.sentence


def test_after_the_first_reason_a_cell_that_is_usual_is_left_out(guard: pf.Guard) -> None:
    rows = frame(200, seed=3)
    rows.loc[0, "temperature"] = 90.0
    found = explained(guard, rows)
    left_out = 0
    for row in range(len(rows)):
        shown, all_of_them = found.main_reasons(row, k=7), found.reasons(row, None)
        for reason in shown[1:]:
            assert "most likely value" not in reason.sentence
            assert "which is usual" not in reason.sentence
            assert reason.kind != "category" or reason.p_value < 0.05
        left_out += sum(
            reason.excess > 0.3 * all_of_them[0].excess and reason not in shown for reason in all_of_them[1:]
        )
    assert left_out > 0  # there were some


def test_a_number_in_its_own_range_is_left_out_where_the_others_say_nothing() -> None:
    """The weight is so far off that no range of the items given the weight is known."""
    rng = np.random.default_rng(0)
    items = 1 + rng.poisson(2, 1000)
    train = pd.DataFrame(
        {"amount": rng.lognormal(3, 0.5, 1000), "items": items, "weight": 0.4 * items + rng.normal(0, 0.1, 1000)}
    )
    found = pf.Guard(alpha=0.05, random_state=0).fit(train).explain(train[:20].assign(weight=9.0, items=3))
    assert found.evidence is not None
    unknown = 0
    for row in range(20):
        [later] = [reason for reason in found.reasons(row, None) if reason.column == "items"]
        low, high = found.evidence.usual_alone(row, 1)
        assert low <= later.value <= high
        unknown += later.usual == ()
        assert [reason.column for reason in found.main_reasons(row)] == ["weight"]
    assert unknown == 20


def test_news_is_said_as_such_and_never_drowns(guard: pf.Guard) -> None:
    rows = frame(1, seed=2).astype({"unit": float, "jobs": float, "load": float})
    rows["load"] = 1e9
    rows["jobs"] = np.inf
    rows["color"], rows["unit"], rows["temperature"] = "mauve", 8.0, np.nan
    found = explained(guard, rows).reasons(k=None)
    first = {reason.column: reason for reason in found[:4]}
    assert {name: reason.kind for name, reason in first.items()} == {
        "color": "new category", "unit": "changed constant", "temperature": "new missing", "jobs": "infinite",
    }  # fmt: skip
    assert first["color"].sentence == "color is 'mauve', which no training row has; they have 'red', 'blue'." or (
        first["color"].sentence == "color is 'mauve', which no training row has; they have 'blue', 'red'."
    )
    assert first["unit"].sentence == "unit is 8; in every training row it is 7."
    assert (
        first["temperature"].sentence == "temperature is missing, and no training row misses it."
    )  # no row has such a load
    assert first["jobs"].sentence == "jobs is infinite, and no training row is."
    assert first["jobs"].excess == math.inf
    cost = math.log(guard.table_features_.rows + 2)
    assert all(first[name].excess >= cost for name in ("color", "unit", "temperature"))
    assert found[4].column == "load"


def test_one_missing_cell_does_not_accuse_the_columns_that_depend_on_it(guard: pf.Guard) -> None:
    rows = frame(40, seed=3)
    rows["temperature"] = np.nan
    found = explained(guard, rows)
    assert all(found.top(i)[0][0] == "temperature" for i in range(40))
    expected = "temperature is missing, and no training row misses it; given the other columns, 95 % of normal rows are between"
    assert found.reasons(0, 1)[0].sentence.startswith(expected)
    load = [r.p_value for i in range(40) for r in found.reasons(i, None) if r.column == "load"]
    assert np.median(load) > 0.2


def test_how_often_normal_rows_miss_a_cell() -> None:
    """Text and numbers miss 2 % of their cells at random, and y misses half of those with the flag."""
    rng = np.random.default_rng(0)
    n = 4000
    table = pd.DataFrame({
        "x": rng.normal(size=n), "city": rng.choice(["A", "B"], n, p=[0.9, 0.1]).astype(object),
        "z": rng.normal(size=n), "y": rng.normal(size=n), "flag": rng.random(n) < 0.5,
    })  # fmt: skip
    table.loc[rng.random(n) < 0.02, "city"] = None
    table.loc[rng.random(n) < 0.02, "z"] = np.nan
    table.loc[table["flag"] & (rng.random(n) < 0.5), "y"] = np.nan
    guard = pf.Guard(alpha=0.05, effort="fast", random_state=0).fit(table)
    usual = {"x": 0.3, "city": "A", "z": 0.2, "y": 0.1, "flag": True}
    for name, low, high in (("city", 0.003, 0.05), ("z", 0.003, 0.05), ("y", 0.3, 0.7)):
        found = explained(guard, pd.DataFrame([usual | {name: None}]).astype(table.dtypes.to_dict()))
        reason = next(r for r in found.reasons(k=None) if r.column == name)
        share = found.evidence.share[0, list(table).index(name)]  # pyright: ignore[reportOptionalMemberAccess]
        assert reason.kind == "missing"
        assert low < share < high
        assert reason.p_value == (share if share < 0.5 else 1.0)  # as in a table of two categories
        assert reason.sentence.startswith(f"{name} is missing (given the other columns, ")


def test_a_usual_instant_is_no_second_reason() -> None:
    rng = np.random.default_rng(0)
    n = 900
    table = pd.DataFrame({
        "when": pd.Timestamp("2024-03-01") + pd.to_timedelta(rng.uniform(0, 86400 * 90, n), unit="s"),
        "x": rng.normal(size=n), "y": np.where(rng.random(n) < 0.04, np.nan, rng.normal(size=n)),
    })  # fmt: skip
    guard = pf.Guard(alpha=0.05, effort="fast", random_state=0).fit(table[:600])
    new = table[600:].assign(y=np.nan)
    found = explained(guard, new)
    assert found.evidence is not None
    assert found.evidence.calendar
    later = [reason.sentence for row in range(len(new)) for reason in found.main_reasons(row)[1:]]
    assert not any("which is usual" in words for words in later)


def test_an_infinite_cell_is_infinite_in_a_table_and_absent_in_json(guard: pf.Guard) -> None:
    rows = frame(2, seed=2).astype({"jobs": float})
    rows.loc[1, "jobs"] = -np.inf
    found = explained(guard, rows)
    table = found.to_frame(k=1)
    assert np.isfinite(table["excess"][0])
    assert (table["column"][1], table["excess"][1], table["value"][1]) == ("jobs", math.inf, "-inf")
    record = found.to_records(k=1)[1]
    assert (record["excess"], record["value"]) == (None, None)


def test_records_table_and_frame(guard: pf.Guard) -> None:
    rows = frame(6, seed=4)
    found = explained(guard, rows)
    records = json.loads(json.dumps(found.to_records(k=2), allow_nan=False))
    assert [(r["row"], r["rank"]) for r in records] == [(i, k) for i in range(6) for k in (1, 2)]
    assert [r["column"] for r in records[::2]] == [found.top(i)[0][0] for i in range(6)]
    table = found.to_table(k=2)
    assert table.num_rows == 12
    assert found.to_frame(k=2)["sentence"].tolist() == [r["sentence"] for r in records]
    empty = explained(guard, rows[:0])
    assert empty.to_table().schema == table.schema
    assert (len(empty), str(empty)) == (0, "no rows to explain")


def test_text_html_and_picture(guard: pf.Guard) -> None:
    rows = frame(14, seed=5).rename(columns={})
    rows.loc[0, "color"] = "<b>mauve</b>"
    found = explained(guard, rows)
    assert str(found).splitlines()[0] == "row 0:"
    assert "... and 4 more rows" in str(found)
    assert repr(found) == "Explanation(14 rows, 7 columns)"
    page = found._repr_html_()
    assert "<b>" not in page
    assert "&lt;b&gt;mauve" in page
    ax = found.plot(0, k=4)
    assert [label.get_text() for label in ax.get_yticklabels()] == [name for name, _ in found.top(0, 4)]
    widths = [bar.get_width() for bar in ax.patches]
    np.testing.assert_allclose(widths, [excess for _, excess in found.top(0, 4)])
    assert found.plot(1, ax=ax) is ax
    rows["jobs"] = rows["jobs"].astype(float)
    rows.loc[1, "jobs"] = np.inf
    infinite = explained(guard, rows).plot(1)
    assert np.isfinite([bar.get_width() for bar in infinite.patches]).all()


def test_rows_that_do_not_exist(guard: pf.Guard) -> None:
    found = explained(guard, frame(3, seed=6))
    assert found.reasons(-1) == found.reasons(2)
    for call in (lambda: found.reasons(3), lambda: found.top(-4), lambda: found.plot(0, k=0)):
        with pytest.raises(ConfigError):
            call()


def test_an_explanation_without_evidence_has_only_nats() -> None:
    found = Explanation(("a", "b"), np.array([[1.0, 2.0]]))
    assert found.top() == [("b", 2.0), ("a", 1.0)]
    assert found.reasons()[0].sentence == "b costs 2.0 nats."
    json.dumps(found.to_records(), allow_nan=False)


def test_the_cells_of_a_frame_without_names() -> None:
    x = np.random.default_rng(0).normal(size=(300, 3))
    guard = pf.Guard(alpha=0.05, effort="fast", random_state=0).fit(x)
    found = guard.explain([[0.0, 9.0, 0.0]]).reasons()[0]
    assert (found.column, found.value) == ("x1", 9.0)


def test_instants_are_shown_as_instants() -> None:
    n = 300
    table = pd.DataFrame({
        "when": pd.Timestamp("2024-03-01") + pd.to_timedelta(np.random.default_rng(0).uniform(0, 86400 * 30, n), unit="s"),
        "x": np.random.default_rng(1).normal(size=n),
    })  # fmt: skip
    guard = pf.Guard(alpha=0.05, effort="fast", random_state=0).fit(table)
    new = pd.DataFrame({"when": [pd.Timestamp("2024-09-01")], "x": [0.1]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = next(r for r in guard.explain(new).reasons(k=None) if r.column == "when")
    assert found.value == datetime.datetime(2024, 9, 1)
    assert "2024-09-01 00:00:00" in found.sentence
    assert found.to_record()["value"] == "2024-09-01T00:00:00"


@pytest.mark.parametrize(
    ("value", "width", "expected"),
    [
        (81.234567, 15.0, "81.2"),
        (81.234567, 0.15, "81.235"),
        (1234.567, 400.0, "1235"),
        (0.5, 1.0, "0.5"),
        (3, 0.0, "3"),
        (True, 0.0, "True"),
        ("red", 0.0, "'red'"),
        (None, 0.0, "missing"),
        (1.5e12, 1.0, "1.5e+12"),
        (2.5e-7, 1e-7, "2.5e-07"),
        (math.inf, 1.0, "infinite"),
        (0.0, 2.0, "0"),
        (0.00052, 5.0, "0.00052"),
        (-0.0013, 5.0, "-0.0013"),
        (0.3, 1e6, "0.3"),
        ("x" * 100, 0.0, repr("x" * 57 + "...")),
    ],
)
def test_cells_as_text(value, width, expected) -> None:
    assert text(value, width) == expected


def test_sentences_of_other_cells() -> None:
    number, color = (
        Column("a", "numeric"),
        Column("c", "categorical", ("red", "blue", "green", "gray"), lattice=(0.0, 1.0)),
    )
    assert sentence(number, "number", 9.0, (0.0, 1.0), (0.0, 10.0), math.nan) == (
        "a is 9; given the other columns, 95 % of normal rows are between 0 and 1."
    )
    assert sentence(number, "number", 0.5, (0.0, 1.0), (2.0, 3.0), math.nan) == (
        "a is 0.5, which fits the other columns of this row; 95 % of all normal rows are between 2 and 3."
    )
    assert sentence(number, "number", 0.5, (0.0, 1.0), (0.0, 3.0), math.nan).startswith(
        "a is 0.5, which is usual given"
    )
    assert sentence(number, "number", 2.0, (1.0, 1.0), (), math.nan).endswith("95 % of normal rows have 1.")
    assert sentence(number, "missing", None, (0.0, 1.0), (), 0.031) == (
        "a is missing (given the other columns, 3.1 % of normal rows miss it)."
    )
    assert sentence(color, "category", "blue", ("red",), (), 0.98) == (
        "c is 'blue'; given the other columns, 98 % of normal rows have 'red'."
    )
    assert sentence(color, "category", "blue", ("red",), (), 0.98, 0.02) == (
        "c is 'blue'; given the other columns, 98 % of normal rows have 'red', and 2 % one at least as rare as 'blue'."
    )
    assert (
        sentence(color, "category", "red", ("red",), (), 0.98)
        == "c is 'red', the most likely value given the other columns."
    )
    assert sentence(color, "new category", "pink", ("red",), (), 0.9) == (
        "c is 'pink', which no training row has; they have 'red', 'blue', 'green' and 1 other."
    )


def test_plain_values() -> None:
    assert plain(datetime.timedelta(minutes=2)) == 120.0
    assert plain(math.nan) is None
    assert plain(datetime.date(2024, 1, 2)) == "2024-01-02"
    assert CELL_KINDS.index("new category") == 3
    assert len(Schema.infer({"a": [1.5, 2.5]})) == 1
