"""A table with a header and no rows, as of an empty day, is scored to one with more columns and no rows."""

import io
import json
import sys

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

import pushforward as pf
from pushforward.cli import main

TABLE = pa.table({"a": np.random.default_rng(0).normal(size=100), "b": ["u", "v"] * 50, "flag": [True, False] * 50})


@pytest.fixture(scope="module")
def guard(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("empty") / "g"
    pf.Guard(0.1, effort="fast", random_state=0).fit(TABLE).save(path)
    return str(path)


def test_a_header_without_a_line_end_is_scored(guard, tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "day.csv").write_text("b,a,flag")
    for source in ("-", str(tmp_path / "day.csv")):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"b,a,flag")))
        output = tmp_path / "scored.csv"
        assert main(["score", guard, source, "--format", "csv", "-o", str(output), "-q"]) == 0, capsys.readouterr().err
        assert output.read_text().replace('"', "") == "b,a,flag,anomaly_score,p_value,alarm\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a,b,flag\n1,u,true\n1,u\n", "row 1 (counted from 0, without blank lines) of {} has 2 cells and the header has 3: give it all cells, which may be empty."),
        ("a,b,flag,\xe9\n1,u,true,1\n".encode("latin-1"), "{} is not UTF-8 text: save it as UTF-8, or name its encoding"),
        (b'a,b,flag\n1,u,"true\n1,u,true\n', "{} has a quotation mark that is never closed"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_table_is_said_by_score_as_by_explain(
    guard, tmp_path, monkeypatch, capsys, content, words
) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    for command, source in (("score", "t.csv"), ("explain", "t.csv"), ("score", "-")):
        name = str(tmp_path / source) if source != "-" else source
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        assert main([command, guard, name, "--format", "csv", "-o", str(tmp_path / "out.csv")]) == 1
        assert words.format(name if source != "-" else "standard input") in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["csv", "parquet", "arrow"])
def test_a_table_without_rows_is_scored(guard, tmp_path, capsys, ending) -> None:
    path, output = tmp_path / f"day.{ending}", tmp_path / f"scored.{ending}"
    if ending == "csv":
        path.write_text("b,a,flag\n")
    elif ending == "parquet":
        pq.write_table(TABLE.slice(0, 0), path)
    else:
        with pa.ipc.new_file(path, TABLE.schema) as sink:
            sink.write_table(TABLE.slice(0, 0))
    assert main(["score", guard, str(path), "-o", str(output)]) == 0
    assert "rows" in capsys.readouterr().out
    assert main(["score", guard, str(path), "-o", str(output), "--workers", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rows"], found["alarms"], found["alarm_fraction"]) == (0, 0, 0.0)
    if ending == "csv":
        assert output.read_text().replace('"', "") == "b,a,flag,anomaly_score,p_value,alarm\n"
    else:
        written = pq.read_table(output) if ending == "parquet" else pa.ipc.open_file(output).read_all()
        assert written.num_rows == 0
        assert written.schema.types[-3:] == [pa.float64(), pa.float64(), pa.bool_()]


def test_an_empty_day_has_no_reasons(guard, tmp_path, capsys) -> None:
    (tmp_path / "day.csv").write_text("b,a,flag\n")
    assert main(["explain", guard, str(tmp_path / "day.csv")]) == 0
    assert "0 of 0 rows explained" in capsys.readouterr().err
    assert main(["explain", guard, str(tmp_path / "day.csv"), "-o", str(tmp_path / "reasons.csv")]) == 0
    assert (tmp_path / "reasons.csv").read_text().startswith('"row","rank","column"')


def test_a_table_that_was_scored_is_recognized_at_fit(tmp_path, capsys) -> None:
    pyarrow.csv.write_csv(TABLE.append_column("alarm", pa.array([True, False] * 50)), tmp_path / "t.csv")
    command = ["fit", str(tmp_path / "t.csv"), "-o", str(tmp_path / "g"), "--alpha", "0.1", "--effort", "fast", "-q"]
    assert main(command) == 0
    assert "the table has a column 'alarm', as `pushforward score` writes it" in capsys.readouterr().err
    assert main([*command, "--drop", "alarm", "--force"]) == 0
    assert "pushforward score" not in capsys.readouterr().err


def test_columns_can_be_set_aside_by_name_and_by_kind_at_once(tmp_path, capsys) -> None:
    table = TABLE.append_column("alarm", pa.array([True, False] * 50)).append_column("row", pa.array(range(100)))
    pyarrow.csv.write_csv(table, tmp_path / "t.csv")
    command = ["fit", str(tmp_path / "t.csv"), "-o", str(tmp_path / "g"), "--alpha", "0.1", "--effort", "fast", "-q"]
    assert main([*command, "--drop", "alarm", "--drop-identifiers"]) == 0
    told = capsys.readouterr().err
    assert "'row' counts the rows" in told
    assert "alarm" not in told
    assert main(["info", str(tmp_path / "g"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ignored_columns"] == ["alarm", "row"]


def test_a_table_without_rows_and_without_a_column_is_an_error(guard, tmp_path, capsys) -> None:
    (tmp_path / "day.csv").write_text("A,b,flag\n")
    assert main(["score", guard, str(tmp_path / "day.csv"), "-o", str(tmp_path / "out.csv")]) == 1
    assert "lacks the column 'a', which the fitted table had; it has 'A'" in capsys.readouterr().err
    assert not (tmp_path / "out.csv").exists()


def test_flags_of_a_file_are_read_as_by_fit(tmp_path) -> None:
    rng = np.random.default_rng(0)
    lines = [f"{rng.normal()},{rng.choice([' true', 'false', 'NA', ' False'])}" for _ in range(400)]
    (tmp_path / "t.csv").write_text("\n".join(["a,flag", *lines[:300]]) + "\n")
    (tmp_path / "new.csv").write_text("\n".join(["a,flag", *lines[300:]]) + "\n")
    assert (
        main(["fit", str(tmp_path / "t.csv"), "-o", str(tmp_path / "g"), "--effort", "fast", "--alpha", "0.1", "-q"])
        == 0
    )
    assert main(["score", str(tmp_path / "g"), str(tmp_path / "new.csv"), "-o", str(tmp_path / "out.csv"), "-q"]) == 0
    assert np.mean(pyarrow.csv.read_csv(tmp_path / "out.csv")["alarm"].to_numpy()) < 0.3
