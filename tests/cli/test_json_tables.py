"""JSON Lines at the command line: the rows that CSV has get the same scores, warnings and cells."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

import pushforward as pf
from pushforward.cli import main
from pushforward.cli.parts import column_types
from pushforward.io import read_table

DAYS = np.datetime64("2024-01-01T10:00:00") + np.random.default_rng(1).integers(0, 10**7, 400).astype("m8[s]")
VALUES = np.random.default_rng(0).normal(size=400)
NEW = slice(300, 320)
FORMS = {"zoned": "{}+01:00", "utc": "{}Z", "naive": "{}", "date": "{:.10}"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For each form of instants the files of fit and score in both formats, and a guard fitted on each."""
    path = tmp_path_factory.mktemp("json")
    for form, text in FORMS.items():
        rows = [
            {"a": float(a), "t": text.format(day), "flag": bool(a > 0)} for a, day in zip(VALUES, DAYS, strict=True)
        ]
        for name, part in ((f"{form}", rows[:300]), (f"{form}-new", rows[NEW])):
            (path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
            cells = "".join(f"{row['a']!r},{row['t']},{str(row['flag']).lower()}\n" for row in part)
            (path / f"{name}.csv").write_text("a,t,flag\n" + cells)
        for ending in ("csv", "jsonl"):
            words = ["fit", str(path / f"{form}.{ending}"), "-o", str(path / f"{form}.{ending}.g"), "-q"]
            with contextlib.redirect_stderr(io.StringIO()):
                assert main([*words, "--effort", "fast", "--alpha", "0.1"]) == 0
    return path


@pytest.mark.parametrize("form", FORMS)
def test_instants_are_those_of_csv(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str) -> None:
    """Guards fitted on both formats are the same, warn of no time zones, and the output has the text of the input."""
    schemas = [pf.Guard.load(folder / f"{form}.{ending}.g").schema_ for ending in ("csv", "jsonl")]
    assert schemas[0] == schemas[1]
    assert schemas[0].columns[1].time == {"naive": "timestamp", "date": "date"}.get(form, "timestamp_utc")
    written = []
    for fitted in ("csv", "jsonl"):
        for scored in ("csv", "jsonl"):
            output = tmp_path / f"{fitted}-{scored}.csv"
            table = str(folder / f"{form}-new.{scored}")
            assert main(["score", str(folder / f"{form}.{fitted}.g"), table, "-o", str(output), "-q"]) == 0
            assert capsys.readouterr().err == ""
            columns = pyarrow.csv.ConvertOptions(column_types={"t": pa.string()})
            written.append(pyarrow.csv.read_csv(output, convert_options=columns))
    assert written[0]["t"].to_pylist() == [FORMS[form].format(day) for day in DAYS[NEW]]
    assert all(table.equals(written[0]) for table in written[1:])


@pytest.mark.parametrize(
    ("fitted", "scored", "words"), [("utc", "naive", "have no time"), ("naive", "utc", "have a time")]
)
def test_the_warnings_of_zones_do_not_depend_on_the_format(folder, tmp_path, capsys, fitted, scored, words) -> None:
    said = []
    for ending in ("csv", "jsonl"):
        table, output = str(folder / f"{scored}-new.{ending}"), str(tmp_path / "o.csv")
        assert main(["score", str(folder / f"{fitted}.{ending}.g"), table, "-o", output, "-q"]) == 0
        said.append(capsys.readouterr().err)
    assert f"20 rows {words} zone" in said[0]
    assert said[0] == said[1]


def test_two_workers_write_instants_as_one_does(folder: Path, tmp_path: Path) -> None:
    words = ["score", str(folder / "zoned.jsonl.g"), str(folder / "zoned-new.jsonl"), "--rows", "5", "-q"]
    for count in ("1", "2"):
        assert main([*words, "-o", str(tmp_path / f"{count}.jsonl"), "--workers", count]) == 0
    one = (tmp_path / "1.jsonl").read_text()
    assert one == (tmp_path / "2.jsonl").read_text()
    cells = [json.loads(line)["t"] for line in one.splitlines()]
    assert cells == [FORMS["zoned"].format(day) for day in DAYS[NEW]]


def test_columns_that_only_late_rows_have(folder: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    """Numbers, flags and instants that the first megabyte lacks; from a file and from a pipe."""
    count = 40_000
    content = '{"a": 0.5, "some": "padding of the line"}\n' * count
    content += '{"a": 0.5, "flag": true, "t": "2024-02-20T09:34:19.25+01:00"}\n'
    (tmp_path / "t.jsonl").write_text(content)
    output = tmp_path / "o.parquet"
    for source in (str(tmp_path / "t.jsonl"), "-"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
        code = main(["score", str(folder / "zoned.jsonl.g"), source, "--format", "jsonl", "-o", str(output), "-q"])
        assert code == 0, capsys.readouterr().err
        table = read_table(output)
        assert table["flag"].null_count == table["t"].null_count == count
        assert str(table["flag"][count].as_py()).lower() == "true"
        assert table["t"][count].as_py() == "2024-02-20T09:34:19.25+01:00"
        scores = table["anomaly_score"].to_numpy()
        assert scores[count] < scores[0]
        capsys.readouterr()
    for source in (str(tmp_path / "t.jsonl"), "-"):
        without = content.replace('"flag"', '"Flag"')
        (tmp_path / "t.jsonl").write_text(without)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(without.encode())))
        words = ["score", str(folder / "zoned.jsonl.g"), source, "--format", "jsonl", "-o", str(tmp_path / "x.parquet")]
        assert main(words) == 1
        assert "lacks the column 'flag', which the fitted table had" in capsys.readouterr().err
        assert not (tmp_path / "x.parquet").exists()


def test_all_columns_of_a_guard_have_a_type(folder: Path) -> None:
    guard = pf.Guard.load(folder / "zoned.jsonl.g")
    assert column_types(guard) == {"a": pa.float64(), "t": pa.string(), "flag": pa.string()}
    array = pf.Guard(0.1, effort="fast", random_state=0).fit(VALUES.reshape(200, 2))
    assert column_types(array) == {}


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
def test_a_written_duration_gets_the_same_score(tmp_path: Path, ending: str) -> None:
    wait = np.random.default_rng(2).exponential(100, 300).round(1)
    table = pa.table({"a": VALUES[:300], "wait": pa.array((wait * 1e9).round().astype("m8[ns]"))})
    pf.Guard(0.1, effort="fast", random_state=0).fit(table).save(tmp_path / "g")
    pq.write_table(table.slice(0, 30), tmp_path / "t.parquet")
    words = ["score", str(tmp_path / "g"), str(tmp_path / "t.parquet"), "-q", "--prefix", "first_"]
    assert main([*words, "-o", str(tmp_path / f"o.{ending}")]) == 0
    assert main(["score", str(tmp_path / "g"), str(tmp_path / f"o.{ending}"), "-q", "-o", str(tmp_path / "p.csv")]) == 0
    again = read_table(tmp_path / "p.csv")
    assert again["anomaly_score"].to_pylist() == again["first_anomaly_score"].to_pylist()
    assert again["wait"].to_pylist() == wait[:30].tolist()
