"""`score --workers`: the output of several processes is that of one, also where something fails."""

from __future__ import annotations

import contextlib
import hashlib
import io
import multiprocessing
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

import pushforward as pf
from pushforward.cli import main, workers
from pushforward.cli.workers import GuardSource, WorkerError, scored_by_workers
from pushforward.errors import InputError

ROWS = ["--rows", "100"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("workers")
    rng = np.random.default_rng(0)
    table = pa.table({"a": rng.normal(size=1050), "b": rng.integers(0, 9, 1050), "c": rng.choice(["u", "v"], 1050)})
    with warnings.catch_warnings():
        # On some processors three of the 100 calibration scores are just far enough from the others for a warning.
        warnings.filterwarnings("ignore", "3 of 100 calibration scores", pf.errors.PushforwardWarning)
        pf.Guard(0.05, effort="fast", random_state=0).fit(table.slice(0, 400)).save(path / "g")
    pyarrow.csv.write_csv(table, path / "x.csv")
    pq.write_table(table, path / "x.parquet", row_group_size=170)
    (path / "parts").mkdir()
    for part in range(7):
        pq.write_table(table.slice(150 * part, 150), path / "parts" / f"part-{part}.parquet")
    unseen = table.set_column(2, "c", pa.array(["u"] * 1000 + ["w"] * 50))
    pyarrow.csv.write_csv(unseen, path / "unseen.csv")
    return path


@pytest.fixture
def fast_start(monkeypatch):
    """Workers that start from a process with all imports: a new one takes seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pushforward.cli.commands", "pushforward.estimators"])
    monkeypatch.setattr(workers.multiprocessing, "get_context", lambda method: context)


def started(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of workers that are started from now on."""
    counts: list[int] = []

    class Noted(workers._Workers):
        def __init__(self, source, count):
            counts.append(count)
            super().__init__(source, count)

    monkeypatch.setattr(workers, "_Workers", Noted)
    return counts


INPUTS = [("x.csv", "s.csv"), ("x.parquet", "s.parquet"), ("parts", "s.arrow"), ("-", "s.jsonl")]


@pytest.mark.usefixtures("fast_start")
@pytest.mark.parametrize(("source", "target"), INPUTS)
def test_two_workers_write_what_one_writes(folder, tmp_path, monkeypatch, capsys, source, target):
    counts = started(monkeypatch)
    written = []
    for count in (1, 2):
        stdin = io.TextIOWrapper(io.BytesIO((folder / "x.csv").read_bytes()))
        monkeypatch.setattr(sys, "stdin", stdin)
        read = ["-", "--format", "csv"] if source == "-" else [str(folder / source)]
        output = tmp_path / f"{count}-{target}"
        code = main(["score", str(folder / "g"), *read, "-o", str(output), *ROWS, "--workers", str(count)])
        assert code == 0, capsys.readouterr().err
        written.append(output.read_bytes())
    assert counts == [2]
    assert len(written[0]) > 1000
    assert written[0] == written[1]


@pytest.mark.usefixtures("fast_start")
def test_a_small_input_starts_no_process(folder, tmp_path, monkeypatch):
    counts = started(monkeypatch)
    words = ["score", str(folder / "g"), str(folder / "x.csv"), "-o", str(tmp_path / "s.csv"), "--workers", "2"]
    assert main([*words, "--rows", "525", "-q"]) == 0  # two parts
    assert counts == []
    assert main([*words, "--rows", "524", "-q"]) == 0
    assert counts == [2]


@pytest.mark.usefixtures("fast_start")
def test_a_wrong_row_late_in_a_pipe_comes_after_the_rows_before_it(folder, tmp_path, monkeypatch, capfdbinary):
    broken = (folder / "x.csv").read_bytes() + b"oops,1,u\n"
    printed = []
    for count in ("1", "2"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(broken)))
        assert main(["score", str(folder / "g"), "-", "--format", "csv", *ROWS, "--workers", count]) == 1
        printed.append(capfdbinary.readouterr())
    assert printed[0] == printed[1]
    assert b"row 1050" in printed[0].err


@pytest.mark.usefixtures("fast_start")
def test_warnings_of_parts_are_added_up(folder, tmp_path, capsys):
    said = []
    for count in ("1", "2"):
        words = ["score", str(folder / "g"), str(folder / "unseen.csv"), "-o", str(tmp_path / "s.csv"), "-q"]
        assert main([*words, *ROWS, "--workers", count]) == 0
        said.append(capsys.readouterr().err)
    assert said[0] == said[1]
    assert said[0].count("rows have a value that no row had at fit") == 1
    assert "'w'" in said[0]


def parts_of(table: pa.Table):
    for start in range(0, table.num_rows, 100):
        yield table.slice(start, 100), None


def source_of(path: Path) -> GuardSource:
    return GuardSource(path, None, None, hashlib.sha256(path.read_bytes()).hexdigest())


def test_the_digest_of_a_source_is_that_of_the_file(folder):
    assert GuardSource.of(folder / "g", None, None) == source_of(folder / "g")


def test_a_worker_that_is_killed_is_one_sentence(folder, monkeypatch):
    """The system ends the process with the most memory when there is none left."""
    pools = []

    class Kept(workers._Workers):
        def __init__(self, source, count):
            super().__init__(source, count)
            pools.append(self)

    monkeypatch.setattr(workers, "_Workers", Kept)
    guard, table = pf.Guard.load(folder / "g"), pq.read_table(folder / "x.parquet")
    scored = scored_by_workers(guard, parts_of(table), source_of(folder / "g"), 2)
    first, result = next(scored)
    np.testing.assert_array_equal(result["p_value"], guard.p_value(first))
    processes = list(pools[0].processes)
    os.kill(processes[0].pid, signal.SIGKILL)
    os.kill(processes[1].pid, signal.SIGKILL)
    with pytest.raises(WorkerError, match=r"ended before its work \(signal 9\): if memory ran out, give fewer"):
        list(scored)
    with pytest.raises(ValueError, match="closed"):
        processes[1].is_alive()  # nothing is left behind


@pytest.mark.usefixtures("fast_start")
def test_a_guard_file_that_changes_is_an_error(folder, tmp_path):
    guard, table = pf.Guard.load(folder / "g"), pq.read_table(folder / "x.parquet")
    source = source_of(folder / "g")
    changed = GuardSource(tmp_path / "g", None, None, source.digest)
    changed.path.write_bytes((folder / "g").read_bytes() + b" ")
    with pytest.raises(pf.errors.StorageError, match="changed while it was used"):
        list(scored_by_workers(guard, parts_of(table), changed, 1))
    large = pa.concat_tables([table] * 100)  # more than the system keeps for a process that does not read
    with pytest.raises(pf.errors.StorageError, match="changed while it was used"):
        list(scored_by_workers(guard, iter([(large, None)] * 3), changed, 1))


@pytest.mark.usefixtures("fast_start")
def test_an_error_in_a_part_comes_after_the_parts_before_it(folder):
    guard, table = pf.Guard.load(folder / "g"), pq.read_table(folder / "x.parquet")
    parts = list(parts_of(table))
    parts[4] = (parts[4][0].drop_columns(["a"]), None)
    scored = scored_by_workers(guard, iter(parts), source_of(folder / "g"), 2)
    for part in parts[:4]:
        assert next(scored)[0] is part[0]
    with pytest.raises(InputError, match="'a'"):
        next(scored)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM that a program can handle")
def test_sigterm_leaves_no_temporary_file(folder):
    before = {path.name for path in folder.iterdir()}
    code = (
        "import os, signal; from pushforward.cli import main, scoring; "
        "scoring.with_scores = lambda *_: os.kill(os.getpid(), signal.SIGTERM); main(['score', 'g', 'x.csv', '-o', 'out.csv'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (128 + signal.SIGTERM, "")
    assert {path.name for path in folder.iterdir()} == before


def test_a_closed_pipe_ends_all_processes(folder):
    start = f'set -o pipefail; pushforward() {{ exec {shlex.quote(sys.executable)} -m pushforward "$@"; }}; '
    command = "pushforward score g x.csv --rows 10 --workers 2 | head -1"
    done = subprocess.run(["bash", "-c", start + command], cwd=folder, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("at", ["the start", "the first rows"])
def test_an_interruption_ends_all_processes(folder, at):
    # A shell starts jobs in the background with SIGINT ignored, which would last.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from pushforward.cli import program; "
        "program()"
    )
    words = ["score", "g", "-", "--format", "csv", "--workers", "2", "--rows", "4000"]
    with (
        subprocess.Popen(
            [sys.executable, "-c", code, *words],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        ) as running,
        contextlib.ExitStack() as end,
    ):
        end.callback(running.kill)
        assert running.stdin is not None
        assert running.stdout is not None
        header, _, lines = (folder / "x.csv").read_bytes().partition(b"\n")

        def write() -> None:
            with contextlib.suppress(OSError):
                running.stdin.write(header + b"\n" + lines * 400)
                running.stdin.flush()

        threading.Thread(target=write, daemon=True).start()
        if at == "the start":  # the workers run, and import what they need
            children = Path(f"/proc/{running.pid}/task/{running.pid}/children")
            end = time.monotonic() + 120
            while len(children.read_text().split()) < 3 and time.monotonic() < end:
                time.sleep(0.01)
            time.sleep(0.2)
        else:
            assert running.stdout.readline().startswith(b'"a","b","c"')
        os.killpg(running.pid, signal.SIGINT)  # what a terminal does for Ctrl-C: every process gets it
        _, errors = running.communicate(timeout=60)
        assert (running.returncode, errors.decode()) == (130, "pushforward: stopped.\n")
        for _ in range(100):  # the last one, which Python itself starts, ends when it finds that the others have
            try:
                os.killpg(running.pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.1)
        pytest.fail("a process is left")
