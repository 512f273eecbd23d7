"""Errors name the row of the table, wherever the part begins in which it is, and a warning is printed once."""

from __future__ import annotations

import json
import multiprocessing
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

import pushforward as pf
from pushforward.cli import main, workers

ROW = 432
SMALL = ["--rows", "100"]


def rows(count: int, seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    days = np.datetime64("2025-01-01T00:00:00") + rng.integers(0, 90 * 86_400, count).astype("m8[s]")
    return pa.table({"day": days, "a": rng.normal(size=count), "c": rng.choice(["u", "v"], count)})


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("rows")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pf.Guard(0.05, effort="fast", random_state=0).fit(rows(400, 0)).save(path / "g")
    table = rows(500, 1)
    text = [str(day) for day in table["day"].to_pylist()]
    bad = table.set_column(0, "day", pa.array([*text[:ROW], "soon", *text[ROW + 1 :]]))
    pyarrow.csv.write_csv(bad, path / "bad.csv")
    pq.write_table(bad, path / "bad.parquet")
    (path / "bad.jsonl").write_text("".join(json.dumps(row) + "\n" for row in bad.to_pylist()))
    pyarrow.csv.write_csv(bad.append_column("label", pa.array([0, 1] * 250)), path / "labeled.csv")
    pyarrow.csv.write_csv(table.append_column("more", pa.array([1] * 500)), path / "more.csv")
    return path


@pytest.mark.parametrize("name", ["bad.csv", "bad.parquet", "bad.jsonl"])
@pytest.mark.parametrize("command", ["score", "explain", "report"])
def test_a_wrong_cell_is_named_by_its_row_in_the_table(folder: Path, capsys, command: str, name: str) -> None:
    output = "out.html" if command == "report" else "out.csv"
    assert main([command, str(folder / "g"), str(folder / name), "-o", str(folder / output), *SMALL]) == 1
    assert f"column 'day', row {ROW} (counted from 0): 'soon' is not a timestamp" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["evaluate", "g", "labeled.csv", "--label", "label"], ["evaluate", "g", "more.csv", "--anomalies", "bad.csv"],
     ["diff", "g", "g", "bad.csv"]],
)  # fmt: skip
def test_also_of_commands_that_read_two_files(folder: Path, capsys, monkeypatch, arguments: list[str]) -> None:
    monkeypatch.chdir(folder)
    assert main([*arguments, *SMALL]) == 1
    assert f"column 'day', row {ROW} (counted from 0): 'soon' is not a timestamp" in capsys.readouterr().err


def test_also_by_workers(folder: Path, capsys, monkeypatch) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pushforward.cli.commands", "pushforward.estimators"])
    monkeypatch.setattr(workers.multiprocessing, "get_context", lambda method: context)
    command = ["score", str(folder / "g"), str(folder / "bad.parquet"), "-o", str(folder / "out.csv"), *SMALL]
    assert main([*command, "--workers", "2"]) == 1
    assert f"column 'day', row {ROW} (counted from 0): 'soon' is not a timestamp" in capsys.readouterr().err


def test_a_warning_of_many_parts_is_printed_once(folder: Path, capsys) -> None:
    assert main(["score", str(folder / "g"), str(folder / "more.csv"), "-o", str(folder / "out.csv"), *SMALL]) == 0
    assert capsys.readouterr().err.count("1 column that the fitted table did not have is ignored: 'more'") == 1


@pytest.mark.parametrize(
    "words",
    [
        ["score", "-o", "out.csv", "--force"],
        ["explain", "-o", "out.csv", "--force"],
        ["explain", "-q"],
        ["evaluate", "--anomalies", "usual.csv"],
    ],
    ids=" ".join,
)
def test_warnings_of_parts_are_added_up(folder: Path, capsys, monkeypatch, words: list[str]) -> None:
    monkeypatch.chdir(folder)
    table = rows(500, 2)
    cells = np.array(table["c"].to_pylist(), dtype=object)
    cells[[3, 120, 121, 410, 411, 412]] = ["w", "x", "x", "w", "y", "z"]
    pyarrow.csv.write_csv(table, "usual.csv")
    pyarrow.csv.write_csv(table.set_column(2, "c", pa.array(cells)), "unseen.csv")
    command, *rest = words
    assert main([command, "g", "unseen.csv", *rest, *SMALL]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert said == [
        "pushforward: warning: column 'c': 6 rows have a value that no row had at fit ('w', 'x', 'y'); this raises the anomaly score."
    ]


def test_warnings_of_parts_come_before_the_error_of_a_later_one(folder: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    table = pyarrow.csv.read_csv("bad.csv")
    cells = np.array(table["c"].to_pylist(), dtype=object)
    cells[[3, 120]] = "w"
    pyarrow.csv.write_csv(table.set_column(table.column_names.index("c"), "c", pa.array(cells)), "both.csv")
    assert main(["score", "g", "both.csv", "-o", "out.csv", *SMALL]) == 1
    said = capsys.readouterr().err
    assert 0 <= said.index("column 'c': 2 rows have a value") < said.index("row 432")
