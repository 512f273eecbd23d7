"""`score --ray`: parts, files and resumption without Ray, and the same on a cluster of this machine where Ray is installed."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

import pushforward as pf
from pushforward.cli import main, ray_scoring
from pushforward.cli.ray_scoring import PartScorer
from pushforward.errors import InputError
from pushforward.io import read_table, stream_table

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("ray")
    rng = np.random.default_rng(0)
    table = pa.table({"a": rng.normal(size=3000), "b": rng.integers(0, 9, 3000), "c": rng.choice(["u", "v"], 3000)})
    pf.Guard(0.05, effort="fast", random_state=0).fit(table.slice(0, 400)).save(path / "g")
    for day in range(2):
        (path / "days" / f"day={day}").mkdir(parents=True)
        pq.write_table(table.slice(1500 * day, 1500), path / "days" / f"day={day}" / "x.parquet", row_group_size=70)
    (path / "texts").mkdir()
    for part in range(3):
        pyarrow.csv.write_csv(table.slice(1000 * part, 1000), path / "texts" / f"{part}.csv")
    return path


@pytest.fixture
def here(monkeypatch) -> list[int]:
    """Parts are scored by this process instead of a cluster; the list has the number of parts of each run."""
    runs: list[int] = []

    def run(items, scorer, address, workers, gpus):
        runs.append(len(items))
        score = PartScorer(*scorer)
        yield from map(score, items)

    monkeypatch.setattr(ray_scoring, "_run", run)
    return runs


def words(folder: Path, table: str, output: Path, *more: str) -> list[str]:
    return ["score", str(folder / "g"), str(folder / table), "-o", str(output), "--rows", "20", *more]


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize(("table", "parts"), [("days", 12), ("texts", 3)])
def test_the_folder_is_the_table_that_one_process_writes(folder, tmp_path, here, capsys, table, parts):
    """Row groups of 70 rows make parts of at most 16 chunks of 20 rows: 280 rows, so 6 of each file of 1500."""
    code = main(words(folder, table, tmp_path / "out", "--ray", "local", "--json"))
    printed = capsys.readouterr()
    assert code == 0, printed.err
    facts = json.loads(printed.out)
    assert (facts["rows"], facts["parts"], facts["parts_before"]) == (3000, parts, 0)
    assert main(words(folder, table, tmp_path / "one.parquet", "-q")) == 0
    one, out = read_table(tmp_path / "one.parquet"), read_table(tmp_path / "out")
    assert out.equals(one)
    assert facts["alarms"] == np.sum(one["alarm"].to_numpy()) > 0


def test_a_second_run_scores_what_is_missing(folder, tmp_path, here, capsys):
    out = tmp_path / "out"
    command = words(folder, "days", out, "--ray", "local", "--json")
    assert main(command) == 0
    first, before = json.loads(capsys.readouterr().out), contents(out)
    for name in ("part-000003.parquet", "part-000011.parquet"):
        (out / name).unlink()
    (out / ".pushforward-0123.tmp").write_bytes(b"half a part")
    assert main(command) == 0
    second = json.loads(capsys.readouterr().out)
    assert here == [12, 2]
    assert contents(out) == before
    assert {key: second[key] for key in ("rows", "alarms")} == {key: first[key] for key in ("rows", "alarms")}
    assert second["parts_before"] == 10
    assert main(command) == 0
    assert here == [12, 2]  # nothing is left to do


def test_the_same_run_from_another_directory(folder, tmp_path, here, monkeypatch):
    assert main(words(folder, "texts", tmp_path / "out", "--ray", "local", "-q")) == 0
    monkeypatch.chdir(folder)
    (tmp_path / "out" / "part-000001.parquet").unlink()
    relative = ["score", "g", "texts", "-o", os.path.relpath(tmp_path / "out"), "--rows", "20", "--ray", "local", "-q"]
    assert main(relative) == 0
    assert here == [3, 1]


def test_a_folder_of_other_scores_is_refused(folder, tmp_path, here, capsys):
    out = tmp_path / "out"
    assert main(words(folder, "days", out, "--ray", "local", "-q")) == 0
    before = contents(out)
    for more, name in ((["--prefix", "x_"], "prefix"), (["--decimal", ","], "decimal")):
        assert main(words(folder, "days", out, "--ray", "local", *more)) == 1
        assert f"which differs in {name}:" in capsys.readouterr().err
    assert main(words(folder, "texts", out, "--ray", "local")) == 1
    assert "differs in table" in capsys.readouterr().err
    assert contents(out) == before
    assert main(words(folder, "days", folder / "texts", "--ray", "local")) == 1
    assert "is not empty" in capsys.readouterr().err
    assert main(words(folder, "days", tmp_path / "no" / "out", "--ray", "local")) == 1
    assert "cannot make the folder" in capsys.readouterr().err
    for inside in (folder / "days", folder / "days" / "out"):  # the workers would find its files among the days
        assert main(words(folder, "days", inside, "--ray", "local")) == 1
        assert "which is read: choose another place" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("table", "more", "sentence"),
    [
        ("-", [], "standard input cannot be scored"),
        ("days", ["--gpus", "1"], "for the guard of a network"),
        ("days", ["--output-format", "csv"], "a folder of Parquet files"),
    ],
)
def test_what_ray_cannot_do_is_one_sentence(folder, tmp_path, capsys, table, more, sentence):
    table = table if table == "-" else str(folder / table)
    assert main(["score", str(folder / "g"), table, "-o", str(tmp_path / "o"), "--ray", "local", *more]) == 1
    assert sentence in capsys.readouterr().err
    assert main(["score", str(folder / "g"), table, "-o", str(tmp_path / "o"), "--gpus", "1"]) == 1
    assert "--gpus is for --ray" in capsys.readouterr().err


def test_an_error_in_a_part_is_one_sentence(folder, tmp_path, here, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "0.csv").write_text("a,b,c\n1,2,u\n")
    (tmp_path / "in" / "1.csv").write_text("a,b,c\n1,two,u\n")
    assert main(["score", str(folder / "g"), str(tmp_path / "in"), "-o", str(tmp_path / "o"), "--ray", "local"]) == 1
    assert "'two'" in capsys.readouterr().err
    assert [file.name for file in (tmp_path / "o").glob("part*")] == ["part-000000.parquet"]
    (tmp_path / "in" / "1.csv").write_text("a,x,c\n1,2,u\n")
    assert main(["score", str(folder / "g"), str(tmp_path / "in"), "-o", str(tmp_path / "p"), "--ray", "local"]) == 1
    assert "the first file of the folder has ['a', 'b', 'c']" in capsys.readouterr().err


def test_files_without_rows(folder, tmp_path, here, capsys):
    """A part without rows has a file with all columns, as `score` writes it."""
    table = tmp_path / "in"
    table.mkdir()
    for name, content in (("0.csv", "a,b,c\n"), ("1.csv", "a,b,c\n1,2,u\n0.5,3,v\n"), ("2.csv", "a,b,c")):
        (table / name).write_text(content)
    for output, more in (("out", ["--ray", "local"]), ("one.parquet", [])):
        assert main(["score", str(folder / "g"), str(table), "-o", str(tmp_path / output), *more, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["rows"] == 2
    one = read_table(tmp_path / "one.parquet")
    assert read_table(tmp_path / "out").equals(one)
    assert one["b"].type == pa.int64()
    parts = [pq.read_table(tmp_path / "out" / f"part-{part:06}.parquet") for part in range(3)]
    assert [part.num_rows for part in parts] == [0, 2, 0]
    assert {part.schema for part in parts} == {one.schema}
    (tmp_path / "out" / "part-000001.parquet").unlink()  # the parts without rows are counted
    assert main(["score", str(folder / "g"), str(table), "-o", str(tmp_path / "out"), "--ray", "local", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["rows"], facts["parts_before"]) == (2, 2)


@pytest.mark.parametrize("name", ["day.parquet", "day.csv", "day"])
def test_a_table_without_rows(folder, tmp_path, here, capsys, name):
    schema = pa.schema([("a", pa.float64()), ("b", pa.int64()), ("c", pa.string())])
    if name == "day.csv":
        (tmp_path / name).write_text("a,b,c")
    else:
        (tmp_path / "day").mkdir()
        files = [tmp_path / name] if name != "day" else [tmp_path / "day" / f"{part}.parquet" for part in range(2)]
        for file in files:
            pq.write_table(schema.empty_table(), file)
    words = ["score", str(folder / "g"), str(tmp_path / name)]
    assert main([*words, "-o", str(tmp_path / "out"), "--ray", "local", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["rows"], facts["alarms"], facts["alarm_fraction"], facts["parts"]) == (0, 0, 0.0, 1)
    assert main([*words, "-o", str(tmp_path / "one.parquet"), "-q"]) == 0
    one = pq.read_table(tmp_path / "one.parquet")
    (found,) = stream_table(tmp_path / "out", empty=True)
    assert found.equals(one)
    assert found.num_rows == 0
    with pytest.raises(InputError, match="has no rows"):  # and not that it is no table
        read_table(tmp_path / "out")
    if name != "day.csv":
        file = tmp_path / name if name != "day" else tmp_path / "day" / "0.parquet"
        pq.write_table(schema.empty_table().drop_columns(["b"]), file)
        assert main([*words, "-o", str(tmp_path / "other"), "--ray", "local"]) == 1
        assert "lacks the column 'b'" in capsys.readouterr().err


def test_without_ray_the_error_names_the_extra(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(words(folder, "days", tmp_path / "o", "--ray", "local")) == 1
    assert 'pip install "pushforward[ray]"' in capsys.readouterr().err


@needs_ray
@pytest.mark.slow
def test_a_run_that_is_killed_goes_on(folder, tmp_path):
    """kill -9 in the middle; the same command then writes the folder that a run without interruption writes."""
    command = [sys.executable, "-m", "pushforward", *words(folder, "days", Path("out"), "--ray", "local")]
    command += ["--workers", "2", "--json"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    done = subprocess.run(command, cwd=tmp_path / "whole", capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("1 column that the fitted table did not have is ignored: 'day'") == 1
    one = tmp_path / "one.parquet"
    assert main(words(folder, "days", one, "-q")) == 0
    assert read_table(tmp_path / "whole" / "out").equals(read_table(one))

    running = subprocess.Popen(command, cwd=tmp_path / "killed", stdout=subprocess.PIPE, env=environment)
    out = tmp_path / "killed" / "out"
    while not list(out.glob("part-*")):
        assert running.poll() is None
        time.sleep(0.002)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    time.sleep(3)  # the cluster ends when it finds that the process has
    left = len(list(out.glob("part-*")))
    assert 0 < left < 12
    again = subprocess.run(command, cwd=tmp_path / "killed", capture_output=True, text=True, env=environment)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["parts_before"] >= left
    assert contents(out) == contents(tmp_path / "whole" / "out")
