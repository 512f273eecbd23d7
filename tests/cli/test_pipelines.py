"""What a user of a shell expects: pipes, folders, formats, closed pipes, full disks, and inputs that stay as they are."""

import contextlib
import gzip
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from programs import shell
from pushforward.cli import main
from pushforward.io import read_table

ADDED = ["log_prob", "anomaly_score", "p_value", "alarm"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("pipelines")
    rng = np.random.default_rng(0)
    table = pa.table({"a": rng.normal(size=5000), "b": rng.integers(0, 9, 5000), "c": rng.choice(["u", "v"], 5000)})
    pyarrow.csv.write_csv(table.slice(0, 400), path / "train.csv")
    pyarrow.csv.write_csv(table, path / "x.csv")
    (path / "x.csv.gz").write_bytes(gzip.compress((path / "x.csv").read_bytes()))
    (path / "parts").mkdir()
    for part in range(100):
        pq.write_table(table.slice(50 * part, 50), path / "parts" / f"part-{part:03}.parquet")
    assert (
        main(
            [
                "fit",
                str(path / "train.csv"),
                "-o",
                str(path / "g"),
                "--alpha",
                "0.05",
                "--density",
                "--n-estimators",
                "1",
                "--max-steps",
                "30",
                "-q",
            ]
        )
        == 0
    )
    return path


def start_shell(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    """As :func:`shell`, with an interpreter that starts and imports everything, as for a user."""
    start = f'set -o pipefail; pushforward() {{ {shlex.quote(sys.executable)} -m pushforward "$@"; }}; '
    return subprocess.run(["bash", "-c", start + command], cwd=folder, capture_output=True, text=True, timeout=300)


def test_a_compressed_file_through_a_pipe_into_head(folder):
    """head ends after ten lines: pushforward stops, says nothing, and its exit code is that of a closed pipe."""
    done = start_shell(folder, "zcat x.csv.gz | pushforward score g - --format csv | head")
    assert done.returncode == 141
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert len(lines) == 10
    assert lines[0] == ",".join(f'"{name}"' for name in ["a", "b", "c", *ADDED])


def test_what_comes_through_a_pipe_has_the_scores_of_the_file(folder):
    done = shell(
        folder,
        "pushforward score g - --format csv -o piped.parquet --json < x.csv.gz && pushforward score g x.csv -o read.parquet --json",
    )
    assert done.returncode == 0, done.stderr
    one, two = map(json.loads, done.stdout.splitlines())
    assert one["rows"] == two["rows"] == 5000
    assert one["alarms"] == two["alarms"] == pq.read_table(folder / "read.parquet")["alarm"].to_numpy().sum()
    a, b = (pq.read_table(folder / f"{name}.parquet")["p_value"].to_numpy() for name in ("piped", "read"))
    np.testing.assert_array_equal(a, b)


def test_a_guard_fitted_from_a_pipe_and_a_summary_on_stderr(folder):
    done = shell(
        folder,
        "cat train.csv | pushforward fit - --format csv -o - --alpha 0.05 --density --n-estimators 1 --max-steps 30 --json > g2 && cmp g g2",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    facts = json.loads(done.stderr)
    assert facts["columns"] == ["a", "b", "c"]
    assert facts["calibration_rows"] == 100


def test_a_folder_of_100_parquet_files(folder):
    done = shell(folder, "pushforward score g parts --output-format jsonl | wc -l")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "5000", "")


def test_formats_that_follow_each_other(folder):
    """Each program reads what the one before it wrote."""
    done = shell(
        folder,
        "pushforward sample g -n 50 --output-format arrow | pushforward score g - --output-format parquet | "
        "pushforward score g - --prefix again_ --output-format jsonl | pushforward score g - --prefix more_ -o last.csv.zst --quiet",
    )
    assert (done.returncode, done.stdout) == (0, "")
    table = read_table(folder / "last.csv.zst")
    assert table.num_rows == 50
    np.testing.assert_array_equal(table["p_value"].to_numpy(), table["more_p_value"].to_numpy())


def test_a_closed_pipe_of_a_summary(folder):
    done = shell(folder, "pushforward info g | true")
    assert done.returncode in (0, 141)
    assert done.stderr == ""


def test_a_standard_stream_that_is_closed_changes_no_result(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)  # as after pushforward ... >&-
        assert main(["info", "g"]) == main(["info", "g", "--json"]) == main(["score", "--help"]) == 0
        assert main(["score", "g", "x.csv", "-o", str(tmp_path / "s.csv")]) == 0
        assert main(["explain", "g", "train.csv"]) == 0
        assert main(["keygen", str(tmp_path / "key.pem")]) == 0
        assert main(["score", "g", "x.csv"]) == main(["recalibrate", "g", "x.csv", "-o", "-"]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("pushforward: ")]
    assert errors == ["pushforward: there is no standard output."] * 2
    sink = io.BytesIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(sink, write_through=True))
        patch.setattr(sys, "stderr", None)
        assert main(["score", "g", "x.csv", "--json"]) == 0
        assert main(["score", "absent", "x.csv"]) == 1
        assert sink.getvalue() == (tmp_path / "s.csv").read_bytes()


def test_a_full_disk_is_one_sentence_and_leaves_what_was_there(folder):
    """The limit on the size of a file stands for the full disk: the same calls of the system fail."""
    (folder / "old.csv").write_text("before")
    done = shell(folder, "ulimit -f 50; pushforward score g x.csv -o old.csv")
    assert done.returncode == 1
    assert done.stderr.strip() == "pushforward: cannot write old.csv: file too large."
    assert (folder / "old.csv").read_text() == "before"
    assert not list(folder.glob(".pushforward*"))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_disk_under_standard_output(folder):
    done = shell(folder, "pushforward score g x.csv > /dev/full")
    assert done.returncode == 1
    assert done.stderr.strip() == "pushforward: cannot write standard output: no space left on device."


def test_no_space_for_the_copy_of_a_pipe(folder):
    done = shell(folder, "ulimit -f 1; cat parts/part-000.parquet | pushforward score g - --output-format csv")
    assert done.returncode == 1
    assert "cannot copy standard input to a temporary file" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_file_that_changes_meanwhile(folder):
    """A program appends to the table while pushforward reads it: nothing is written under the name of the output."""
    done = shell(
        folder,
        "cp x.csv grows.csv; while sleep 0.02; do echo 1,2,u >> grows.csv; done & "
        "pushforward score g grows.csv -o grown.csv --rows 1000; code=$?; kill %1; exit $code",
    )
    assert done.returncode == 1
    assert (
        done.stderr.strip()
        == "pushforward: grows.csv changed while it was read: read it again when nothing writes to it."
    )
    assert not (folder / "grown.csv").exists()


def test_an_input_is_replaced_only_by_force(folder):
    (folder / "in.csv").write_bytes((folder / "x.csv").read_bytes())
    os.link(folder / "in.csv", folder / "same.csv")
    for command in (
        "pushforward score g in.csv -o in.csv",
        "pushforward score g in.csv -o ./in.csv",
        "pushforward score g in.csv -o same.csv",
        "pushforward score g in.csv -o g --output-format csv",
        "pushforward score g parts -o parts/scores.parquet",
        "pushforward fit in.csv -o in.csv",
        "pushforward sample g -o g --output-format csv",
    ):
        done = shell(folder, command)
        assert done.returncode == 1, command
        assert "--force" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert (folder / "in.csv").read_bytes() == (folder / "x.csv").read_bytes()
    assert shell(folder, "pushforward score g in.csv -o in.csv --force -q").returncode == 0
    assert read_table(folder / "in.csv").column_names == ["a", "b", "c", *ADDED]


def test_a_wrong_row_late_in_a_pipe_is_an_error(folder):
    """The rows before it were written to standard output; a file would not exist."""
    done = shell(folder, "(cat x.csv; echo 1,x,u) | pushforward score g - --format csv -o late.csv")
    assert done.returncode == 1
    assert done.stderr.startswith(
        "pushforward: column 'b', row 5000 (counted from 0) of standard input: 'x' is not a number"
    )
    assert not (folder / "late.csv").exists()


def test_semicolons_and_another_encoding(folder):
    (folder / "eu.txt").write_bytes((folder / "x.csv").read_text().replace(",", ";").encode("utf-16"))
    done = shell(folder, "pushforward score g eu.txt --format csv --encoding utf-16 -o eu.csv")
    assert done.returncode == 1
    assert "--delimiter ';'" in done.stderr
    done = shell(folder, "pushforward score g eu.txt --format csv --encoding utf-16 --delimiter ';' -o eu.csv --json")
    assert json.loads(done.stdout)["rows"] == 5000


def test_exit_codes_are_in_the_help(capsys):
    assert main(["--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for code in ("0 done", "1 an error", "2 wrong arguments", "70 an unexpected", "130 interrupted", "141 the program"):
        assert code in said.replace("│ ", "")


@pytest.mark.parametrize(
    ("number", "code", "said", "more"),
    [(signal.SIGINT, 130, "pushforward: stopped.\n", True), (signal.SIGTERM, 143, "", False)],
    ids=["more lines come", "no more lines come"],
)
def test_a_signal_ends_the_process_that_waits_for_standard_input(folder, number, code, said, more):
    """A thread of pyarrow reads meanwhile. It must not delay the signal, nor abort the process when more lines come to it."""
    command = [sys.executable, "-m", "pushforward", "score", "g", "-", "--format", "csv", "--rows", "20000"]
    header, _, lines = (folder / "x.csv").read_bytes().partition(b"\n")
    few = lines[: lines.find(b"\n", 10_000) + 1]
    with subprocess.Popen(command, cwd=folder, stdin=-1, stdout=-1, stderr=-1, bufsize=0) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        assert running.stderr is not None
        write, drain = running.stdin.write, running.stdout.read

        def go_on() -> None:
            with contextlib.suppress(OSError):
                write(header + b"\n" + lines * 20)
                while running.poll() is None:
                    time.sleep(0.1)
                    if more:
                        write(few)

        writer = threading.Thread(target=go_on)
        writer.start()
        assert running.stdout.read(4) == b'"a",'
        reader = threading.Thread(target=drain)
        reader.start()
        time.sleep(3)
        running.send_signal(number)
        try:
            assert running.wait(20) == code
            assert running.stderr.read().decode() == said
        finally:
            running.kill()
            for thread in (writer, reader):
                thread.join()
