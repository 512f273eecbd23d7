"""`pushforward explain`: sentences, JSON, tables, pipes, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from pushforward.cli import main
from pushforward.estimators import Guard


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("explain")
    rng = np.random.default_rng(0)
    load = rng.normal(size=600)
    train = pd.DataFrame({
        "temperature": 27 + 4 * load + 0.3 * rng.normal(size=600), "load": load, "city": rng.choice(["Oslo", "Bern"], 600),
    })  # fmt: skip
    train.to_csv(path / "train.csv", index=False)
    new = train.iloc[:40].copy()
    new.loc[3, "temperature"] = 81.2
    new.loc[7, "city"] = "Rome"
    new.to_csv(path / "new.csv", index=False)
    assert (
        main(["fit", str(path / "train.csv"), "-o", str(path / "g"), "--alpha", "0.05", "--effort", "fast", "-q"]) == 0
    )
    return path


def test_sentences_of_the_alarms(folder: Path, capsys) -> None:
    assert main(["explain", str(folder / "g"), str(folder / "new.csv"), "--rows", "5"]) == 0
    lines, messages = capsys.readouterr()
    alarms = np.flatnonzero(Guard.load(folder / "g").predict(pd.read_csv(folder / "train.csv").iloc[:40]) == -1)
    assert {int(line.split()[1]) for line in lines.splitlines() if line.startswith("row ")} == {3, 7, *alarms.tolist()}
    assert "  temperature is 81.2; given the other columns, 95 % of normal rows are between " in lines
    assert "  city is 'Rome', which no training row has; they have " in lines
    assert "of 40 rows explained" in messages


def test_json_of_every_row(folder: Path, capsys) -> None:
    arguments = ["explain", str(folder / "g"), str(folder / "new.csv"), "--json", "--all", "--top", "2", "--rows", "7"]
    assert main(arguments) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["row"] for row in rows] == list(range(40))
    assert all(len(row["reasons"]) == 2 and row["reasons"][0]["row"] == row["row"] for row in rows)
    assert rows[3]["alarm"]
    assert rows[3]["reasons"][0]["column"] == "temperature"
    assert rows[3]["reasons"][0]["usual_high"] < 60


@pytest.mark.parametrize("name", ["r.parquet", "r.csv"])
def test_a_table_of_reasons(folder: Path, name: str, capsys) -> None:
    assert main(["explain", str(folder / "g"), str(folder / "new.csv"), "-o", str(folder / name), "--top", "1"]) == 0
    read = pq.read_table(folder / name).to_pandas() if name.endswith("parquet") else pd.read_csv(folder / name)
    assert read.loc[read["row"] == 3, "column"].item() == "temperature"
    assert read.loc[read["row"] == 7, "kind"].item() == "new category"
    assert "reasons written to" in capsys.readouterr().out


def test_a_table_without_alarms_gives_an_empty_table(folder: Path) -> None:
    usual = pd.DataFrame({"temperature": [27.0], "load": [0.0], "city": ["Oslo"]})
    usual.to_csv(folder / "usual.csv", index=False)
    assert (
        main(["explain", str(folder / "g"), str(folder / "usual.csv"), "-o", str(folder / "none.parquet"), "-q"]) == 0
    )
    assert pq.read_table(folder / "none.parquet").num_rows == 0


def test_what_is_refused(folder: Path, capsys) -> None:
    guard, table = str(folder / "g"), str(folder / "new.csv")
    assert main(["explain", guard, table, "--json", "-o", str(folder / "x.csv")]) == 1
    assert "either --json or -o" in capsys.readouterr().err
    assert main(["explain", guard, table, "--json", "--output-format", "parquet"]) == 1
    captured = capsys.readouterr()
    assert "--output-format" in captured.err
    assert captured.out == ""
    assert main(["explain", guard, table, "-o", table]) == 1
    assert "--force" in capsys.readouterr().err
    assert main(["explain", guard, table, "--top", "0"]) == 2
    assert main(["explain", table, table]) == 1


def test_names_with_a_line_end_stay_in_one_line(tmp_path: Path, capsys) -> None:
    rows = {"heat\nin": np.random.default_rng(0).normal(size=200), "city": ["Oslo", "Bern"] * 100}
    Guard(alpha=0.05, effort="fast", random_state=0).fit(rows).save(tmp_path / "g")
    pd.DataFrame({"heat\nin": [90.5], "city": ["Oslo"]}).to_csv(tmp_path / "new.csv", index=False)
    assert main(["explain", str(tmp_path / "g"), str(tmp_path / "new.csv")]) == 0
    assert "\n  heat\\nin is 90.5; given the other columns, " in capsys.readouterr().out
