"""The modules of a table's graph give the numbers of the guard, and refuse what they cannot."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from mixed_tables import mixed_table, strange_rows

import pushforward as pf
from pushforward.data import Schema
from pushforward.data.calendar import calendar_columns
from pushforward.data.cells import category_cells
from pushforward.detection.table import Sizes, fit_pool, pool_fit
from pushforward.detection.table.families import FAMILIES
from pushforward.detection.table.neighbors import Neighbors
from pushforward.detection.table.tails import Tails
from pushforward.detection.table_features import TableFeatures
from pushforward.errors import ConfigError, PushforwardWarning
from pushforward.graphs import table as table_graph
from pushforward.graphs.guard_inputs import MISSING, codes_of_texts
from pushforward.graphs.guards import guard_graph
from pushforward.graphs.table import PoolGraph, TableGraph
from pushforward.graphs.table_neighbors import NeighborsGraph
from pushforward.graphs.table_statistics import TailsGraph


def encoded(guard: pf.Guard, table) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # unseen categories are what is tested
        return guard.schema_.encode(table)[0]


def assess(guard: pf.Guard, table) -> dict[str, np.ndarray]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return guard.assess(table)


@pytest.mark.parametrize("portable", [False, True])
def test_scores_are_those_of_the_guard_on_usual_and_strange_rows(mixed_guard, portable):
    for table in (mixed_table(150, seed=1), strange_rows()):
        found = TableGraph(mixed_guard.score_, portable=portable)(torch.from_numpy(encoded(mixed_guard, table)))
        np.testing.assert_allclose(
            found.numpy(), assess(mixed_guard, table)["anomaly_score"], rtol=1e-8
        )  # distances have eight digits


def test_a_new_category_of_a_column_with_many_rare_ones_costs_the_same_in_a_graph():
    table = mixed_table(300, seed=3)
    table.loc[:39, "city"] = [f"Town {k}" for k in range(40)]
    with pytest.warns(PushforwardWarning, match="'city' has .* that one of 300 rows has"):
        guard = pf.Guard(alpha=0.05, effort="fast", random_state=0).fit(table)
    assert guard.table_features_.singletons[0][1] > 20
    rows = strange_rows()
    found = TableGraph(guard.score_, portable=True)(torch.from_numpy(encoded(guard, rows)))
    np.testing.assert_allclose(found.numpy(), assess(guard, rows)["anomaly_score"], rtol=1e-8)


def test_columns_enter_as_numbers_and_codes(mixed_guard):
    table = strange_rows()
    graph = guard_graph(
        mixed_guard.score_, mixed_guard.calibrator_.scores, mixed_guard.level_, {}, columns=True, portable=True
    )
    matrix = encoded(mixed_guard, table)
    inputs = []
    for index, name in enumerate(graph.inputs):
        column = matrix[:, index]
        if name in graph.texts:
            codes = np.where(np.isnan(column), MISSING, np.where(np.isinf(column), 10**6, column))
            inputs.append(torch.from_numpy(codes.astype(np.int64)))
        else:
            inputs.append(torch.from_numpy(column.copy()))
    found, expected = graph.module(*inputs), assess(mixed_guard, table)
    for name in ("p_value", "alarm"):
        np.testing.assert_array_equal(found[name].numpy(), expected[name])
    assert graph.inputs == ("income", "visits", "member", "city", "when", "input.alarm", "grade", "unit")
    assert graph.texts["grade"]["1.0"] == graph.texts["grade"]["1"]
    assert graph.facts["columns"][4]["unit"] == "seconds since 1970-01-01"


@pytest.mark.parametrize("width", [3, 60])
@pytest.mark.parametrize("portable", [False, True])
def test_every_statistic_of_the_pool_has_a_graph(monkeypatch, width, portable):
    rng = np.random.default_rng(0)
    rows = np.round(rng.normal(size=(260, width)), 1)  # with ties and equal cells
    rows[:40] = rows[40:80]
    features = TableFeatures.fit(*Schema.infer_encode(rows))
    monkeypatch.setattr(pool_fit, "weights", lambda areas, count: np.full(len(areas), 1 / len(areas)))
    pool = fit_pool(features, rows, sizes=Sizes(200, 200, 200, 100))
    assert {family for family, _ in pool.scales} == set(FAMILIES)
    assert {name for _, name in pool.scales} == {name for family in FAMILIES.values() for name in family.names}
    new = np.concatenate((np.round(rng.normal(size=(100, width)), 1), rows[:100], 1e3 * rng.normal(size=(5, width))))
    found = PoolGraph(pool, portable=portable)(torch.from_numpy(new)).numpy()
    np.testing.assert_allclose(found, pool.score(new), rtol=1e-10, atol=1e-10)


def test_many_rows_with_one_time_of_day_are_ties_in_every_runtime():
    rng = np.random.default_rng(0)
    circle = calendar_columns(900.0 * rng.integers(0, 96, 500), "day")
    number = circle[:, 1] + 1.0  # the digits of a number are exact
    graph = TailsGraph(
        Tails.fit(np.column_stack((circle, number))), {"tail_max", "tail_3"}, np.array([True, True, False])
    )
    ties = Tails.fit(np.column_stack((circle.round(12), number)))
    expected = ties.score(np.column_stack((circle.round(12), number)), {"tail_max", "tail_3"})
    for end in (-2.0, 2.0):
        of_another_library = np.column_stack((np.nextafter(circle, end), number))
        found = graph(torch.from_numpy(of_another_library))
        for name, values in expected.items():
            np.testing.assert_allclose(found[name].numpy(), values, rtol=1e-12)


def test_times_of_day_have_the_score_of_the_guard_in_a_graph(monkeypatch):
    rng = np.random.default_rng(0)
    when = (pd.Timestamp("2026-01-01") + pd.to_timedelta(15 * rng.integers(0, 96, 400), unit="min")).time
    table = pd.DataFrame({"at": when, "a": rng.normal(size=400)})
    monkeypatch.setattr(pool_fit, "weights", lambda areas, count: np.full(len(areas), 1 / len(areas)))
    guard = pf.Guard(0.1, effort="fast", store_rows=False, random_state=0).fit(table)
    assert ("tails", "tail_max") in guard.score_.pool.scales
    found = TableGraph(guard.score_, portable=True)(torch.from_numpy(encoded(guard, table))).numpy()
    np.testing.assert_allclose(found, guard.anomaly_score(table), rtol=1e-8)


def test_distances_are_cut_off_after_29_bits_as_the_guard_does():
    rng = np.random.default_rng(0)
    x = np.concatenate((np.exp(rng.normal(0, 20, 20_000)), [0.0, 1.0, 2.0**-30, 1 - 2.0**-29, np.nextafter(2.0, 0)]))
    bits = x.view(np.int64) & ~np.int64((1 << 24) - 1)
    part = Neighbors.fit(rng.normal(size=(4, 2)))
    graph = NeighborsGraph(part, {"knn1"}, portable=True)
    np.testing.assert_array_equal(graph._cut(torch.from_numpy(x)).numpy(), bits.view(np.float64))


def test_a_batch_of_no_rows_has_no_scores(mixed_guard):
    assert TableGraph(mixed_guard.score_, portable=True)(torch.zeros(0, 8).double()).shape == (0,)


def test_a_table_of_texts_has_no_empty_constants():
    # torch.export.save fails for several empty buffers
    rng = np.random.default_rng(0)
    texts = {f"c{k}": rng.choice(["yes", "no", "perhaps"], 200) for k in range(4)}
    guard = pf.Guard(0.1, effort="fast", random_state=0).fit(texts)
    graph = TableGraph(guard.score_, portable=False)
    assert all(buffer.numel() for buffer in graph.buffers())
    found = graph(torch.from_numpy(encoded(guard, texts)))
    np.testing.assert_allclose(found.numpy(), guard.anomaly_score(texts), rtol=1e-10)


def test_codes_of_texts_have_the_spellings_of_numbers_and_flags():
    codes = codes_of_texts(("2", "1.5", "True", "x"))
    two, more = dict.fromkeys(("2", "2.0", "2.00", "2.000"), 0), dict.fromkeys(("1.5", "1.50", "1.500"), 1)
    assert codes == {"": -1, **two, **more, "True": 2, "true": 2, "TRUE": 2, "x": 3}
    own = codes_of_texts(("1", "1.0"))  # a category's own text comes first
    assert (own["1"], own["1.0"], own["1.00"]) == (0, 1, 0)
    for text, code in (codes | {"0.1234": 4}).items():
        if text:
            assert category_cells("c", pa.array([text]), ("2", "1.5", "True", "x", "0.1234")).values.tolist() == [code]


def test_a_graph_that_would_be_too_large_says_what_to_do(mixed_guard, monkeypatch, tmp_path):
    monkeypatch.setattr(table_graph, "LARGEST_GRAPH", 1000)
    with pytest.raises(
        ConfigError,
        match=r"neighbors are searched among \d+ rows of \d+ coordinates.*exportable=True.*fit --exportable",
    ):
        mixed_guard.export(tmp_path / "guard.pt2")


def test_an_exportable_guard_stores_at_most_a_thousand_rows():
    x = np.random.default_rng(0).normal(size=(2400, 2))
    guard = pf.Guard(0.1, exportable=True, calibration=200, random_state=0).fit(x)
    assert len(guard.score_.pool) == 1000


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("guard.txt", {}, r"must end in \.onnx \(ONNX\) or \.pt2"),
        ("guard", {}, r"must end in"),
        ("guard.pt2", {"inputs": "columns"}, "takes one matrix"),
        ("guard.pt2", {"inputs": "rows"}, "inputs must be 'auto', 'columns' or 'matrix'"),
    ],
)
def test_wrong_arguments_are_one_sentence(mixed_guard, tmp_path, name, options, message):
    with pytest.raises(ConfigError, match=message):
        mixed_guard.export(tmp_path / name, **options)
    assert not list(tmp_path.iterdir())


def test_smoothing_cannot_be_exported_and_says_so(tmp_path):
    x = np.random.default_rng(0).normal(size=(200, 2))
    guard = pf.Guard(0.1, smoothing={"sigma": 0.5, "draws": 8}, random_state=0).fit(x)
    with pytest.raises(ConfigError, match="cryptographic hash"):
        guard.export(tmp_path / "guard.pt2")
    with pytest.raises(ConfigError, match="leave out exportable or smoothing"):
        pf.Guard(smoothing=0.5, exportable=True).fit(x)
    with pytest.raises(ConfigError, match="exportable must be True or False"):
        pf.Guard(exportable="yes").fit(x)


def test_onnx_without_its_packages_names_the_extra(mixed_guard, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(ConfigError, match=r"pushforward\[export\]"):
        mixed_guard.export(tmp_path / "guard.onnx")
