"""Thousands of malformed tables, arrays, files and command lines: each a clear error or a decided answer.

Never a bare traceback, a NaN, or a changed file. Model files have their own fuzz in test_storage_fuzz.py.
"""

import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pushforward.cli import main
from pushforward.errors import PushforwardError, PushforwardWarning
from pushforward.estimators import Guard

WORDS = [
    "",
    " ",
    "a",
    "1e400",
    "nan",
    "-inf",
    "1,5",
    "None",
    "\x00",
    "é",
    "a" * 500,
    "0x10",
    "1_000",
    "--",
    "'",
    '"',
    "\n",
    "True",
]
NUMBERS = [0, -0.0, 1e308, -1e308, 1e-320, math.nan, math.inf, -math.inf, 2**63, -(2**70), True, 1e20, 7]


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame({"x": rng.normal(size=120), "k": rng.integers(0, 5, 120), "c": rng.choice(["u", "v"], 120)})


@pytest.fixture(scope="module")
def guard(frame: pd.DataFrame) -> Guard:
    return Guard(0.1, random_state=0).fit(frame)


def put(table: pd.DataFrame, rng: np.random.Generator, value: Any) -> pd.DataFrame:
    """The table with one cell replaced (pandas would spread a list over several)."""
    values = table.to_numpy(dtype=object, copy=True)
    values[rng.integers(len(table)), rng.integers(table.shape[1])] = value
    return pd.DataFrame(values, columns=table.columns)


def damaged_frame(frame: pd.DataFrame, rng: np.random.Generator) -> Any:
    """A small table with one to three things wrong with it."""
    table = frame.iloc[rng.integers(0, 100) :][: rng.integers(0, 6)].reset_index(drop=True).astype(object)
    for _ in range(rng.integers(1, 4)):
        match rng.integers(0, 9):
            case 0 if len(table) and table.shape[1]:
                table = put(table, rng, WORDS[rng.integers(len(WORDS))])
            case 1 if len(table) and table.shape[1]:
                table = put(table, rng, NUMBERS[rng.integers(len(NUMBERS))])
            case 2 if table.shape[1]:
                table = table.drop(columns=table.columns[rng.integers(table.shape[1])])
            case 3:
                table[WORDS[rng.integers(len(WORDS))]] = 1
            case 4:
                table = table[table.columns[::-1]]
            case 5:
                table.columns = [WORDS[rng.integers(len(WORDS))] for _ in table.columns]
            case 6:
                table = pd.concat([table, table], axis=1)
            case 7 if len(table) and table.shape[1]:
                table = put(table, rng, [None, [1], {}, 1j, b"x", pd.Timestamp(0)][rng.integers(6)])
            case 8:
                table = table.astype(str)
    return table


def damaged_array(rng: np.random.Generator) -> Any:
    shape = [(), (0,), (3,), (0, 3), (2, 3), (4, 2), (2, 3, 1), (1, 1), (3, 0)][rng.integers(9)]
    kind = rng.integers(0, 7)
    if kind == 0:
        return rng.normal(size=shape).astype([np.float16, np.float32, np.float64, np.longdouble][rng.integers(4)])
    if kind == 1:
        return np.full(shape, NUMBERS[rng.integers(len(NUMBERS))], dtype=object)
    if kind == 2:
        return np.full(shape, WORDS[rng.integers(len(WORDS))])
    if kind == 3:
        return rng.normal(size=shape) + 1j
    if kind == 4:
        return [
            None,
            3,
            "table.csv",
            b"bytes",
            {},
            {"x": 1},
            set(),
            object(),
            Guard,
            lambda: 0,
            [[1, 2], [3]],
            iter([1]),
        ][rng.integers(12)]
    if kind == 5:
        return np.full(shape, np.datetime64("2020-01-01"))
    values = rng.normal(size=shape)
    if values.size:
        values.flat[rng.integers(values.size)] = [math.nan, math.inf, -math.inf, 1e300][rng.integers(4)]
    return values


def answered(call: Any) -> str:
    """Run a call; it may return finite or infinite numbers without NaN, or raise one of our errors with one sentence."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PushforwardWarning)
        try:
            values = call()
        except PushforwardError as error:
            return "refused" if str(error).strip() else "silent"
    assert not np.isnan(np.asarray(values, dtype=float)).any()
    return "scored"


def test_malformed_tables_at_scoring(guard: Guard, frame: pd.DataFrame) -> None:
    rng = np.random.default_rng(1)
    counts = {"refused": 0, "scored": 0}
    for _ in range(1200):
        table = damaged_frame(frame, rng)
        counts[answered(lambda table=table: guard.p_value(table))] += 1
    assert min(counts.values()) > 100  # both kinds of answer were exercised


def test_malformed_arrays_at_scoring() -> None:
    x = np.random.default_rng(0).normal(size=(80, 3))
    guard = Guard(0.1, random_state=0).fit(x)
    rng = np.random.default_rng(2)
    counts = {"refused": 0, "scored": 0}
    for _ in range(800):
        array = damaged_array(rng)
        counts[answered(lambda array=array: guard.p_value(array))] += 1
    assert min(counts.values()) > 20


def test_malformed_tables_at_fit(frame: pd.DataFrame) -> None:
    rng = np.random.default_rng(3)
    counts = {"refused": 0, "scored": 0}
    for _ in range(150):
        table = damaged_frame(frame, rng) if rng.random() < 0.5 else damaged_array(rng)
        counts[answered(lambda table=table: Guard(0.1).fit(table).anomaly_score(table))] += 1
    assert counts["refused"] > counts["scored"] > 0  # four rows can be fitted


def command_lines(folder: Path, rng: np.random.Generator) -> Iterator[list[str]]:
    files = [
        "guard.safetensors",
        "table.csv",
        "absent.csv",
        "empty.csv",
        "bytes.bin",
        "ragged.csv",
        ".",
        "",
        "fake.parquet",
    ]
    words = [
        *files,
        "-o",
        "--alpha",
        "2",
        "nan",
        "-1",
        "--rows",
        "0",
        "--model",
        "zz",
        "--max-time",
        "soon",
        "-n",
        "--drop",
        "\x00x",
    ]
    for _ in range(300):
        command = ["fit", "score", "sample", "info", "demo!"][rng.integers(5)]
        line = [command, *(words[i] for i in rng.integers(0, len(words), rng.integers(0, 6)))]
        yield line if "-o" in line or rng.random() < 0.3 else [*line, "-o", str(folder / "absent" / "out.csv")]


def test_malformed_command_lines(guard: Guard, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    guard.save("guard.safetensors")
    Path("table.csv").write_text("x,k,c\n1.5,2,u\n")
    Path("empty.csv").write_text("")
    Path("ragged.csv").write_text("x,k,c\n1,2\n1,2,3,4\n")
    Path("bytes.bin").write_bytes(bytes(range(256)))
    Path("fake.parquet").write_bytes(b"PAR1nonsensePAR1")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for line in command_lines(tmp_path, np.random.default_rng(4)):
        code = main(line)
        captured = capsys.readouterr()
        assert code != 70, (line, captured.err)
        assert "Traceback" not in captured.err, line
        if code:
            assert len(captured.err.strip().splitlines()) == 1, (line, captured.err)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before, line
