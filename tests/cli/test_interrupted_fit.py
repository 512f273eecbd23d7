"""Ctrl-C in `Guard.fit` and `pushforward fit`: a checkpoint, one line with the command that goes on, and the same guard at the end."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import pushforward as pf
from pushforward.cli import main
from pushforward.errors import ConfigError, StorageError, TrainingError
from pushforward.training.trainer import Trainer

X = np.random.default_rng(0).normal(size=(300, 3))
FLOWS = {"density": True, "effort": "fast", "n_estimators": 3, "max_steps": 12, "random_state": 0}
WORDS = ["--density", "--effort", "fast", "--n-estimators", "3", "--max-steps", "12", "--alpha", "0.1"]


@pytest.fixture
def interrupted(monkeypatch):
    """A function that makes the k-th training step from now a Ctrl-C; Python handles SIGINT also in a job in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    step = Trainer._step

    def at(number: int) -> None:
        calls = []

        def counted(self, *arguments):
            calls.append(None)
            if len(calls) == number:
                signal.raise_signal(signal.SIGINT)
            return step(self, *arguments)

        monkeypatch.setattr(Trainer, "_step", counted)

    yield at
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def table(tmp_path) -> Path:
    path = tmp_path / "x.csv"
    np.savetxt(path, X, delimiter=",", header="a,b,c", comments="")
    return path


@pytest.mark.parametrize("number", [5, 20])  # in the first flow, and in those that train together after it
def test_the_same_command_goes_on_to_the_same_file(interrupted, table, tmp_path, capsys, number: int) -> None:
    whole, part = tmp_path / "whole.safetensors", tmp_path / "part.safetensors"
    assert main(["fit", str(table), "-o", str(whole), *WORDS, "-q"]) == 0
    words = ["fit", str(table), "-o", str(part), *WORDS, "-q"]
    capsys.readouterr()
    interrupted(number)
    assert main(words) == 130
    err = capsys.readouterr().err.strip().splitlines()
    folder = tmp_path / "part.safetensors.checkpoint"
    assert (
        err[-1]
        == f"pushforward: stopped; {folder} has a checkpoint, and this goes on: {shlex.join(['pushforward', *words])}"
    )
    assert not part.exists()
    assert sorted(folder.iterdir())
    interrupted(10**6)
    assert main(shlex.split(err[-1].partition("goes on: ")[2])[1:]) == 0  # what the line says
    assert part.read_bytes() == whole.read_bytes()
    assert not folder.exists()


def test_other_options_are_refused_with_a_sentence(interrupted, table, tmp_path, capsys) -> None:
    words = ["fit", str(table), "-o", str(tmp_path / "g.safetensors"), *WORDS, "-q"]
    interrupted(5)
    assert main(words) == 130
    interrupted(10**6)
    capsys.readouterr()
    assert main([*words, "--seed", "4"]) == 1
    assert "belongs to another run" in capsys.readouterr().err
    (tmp_path / "g.safetensors.checkpoint" / "flows-0.safetensors.0").unlink()
    assert main([*words, "--seed", "4"]) == 0


def test_without_flows_there_is_nothing_to_go_on_with(monkeypatch, table, tmp_path, capsys) -> None:
    from pushforward.estimators import guard_options

    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(guard_options, "fit_table_score", stop)
    assert main(["fit", str(table), "-o", str(tmp_path / "g.safetensors"), "-q"]) == 130
    assert capsys.readouterr().err.strip() == "pushforward: stopped."
    assert [path.name for path in tmp_path.iterdir()] == ["x.csv"]


def test_a_guard_goes_on_where_it_was_stopped(interrupted, tmp_path) -> None:
    whole = pf.Guard(0.1, **FLOWS).fit(X)
    interrupted(7)
    with pytest.raises(KeyboardInterrupt, match="the same call resumes"):
        pf.Guard(0.1, **FLOWS).fit(X, checkpoint=tmp_path / "run")
    interrupted(10**6)
    with pytest.raises(TrainingError, match="belongs to another run"):
        pf.Guard(0.1, **FLOWS).fit(X + 1, checkpoint=tmp_path / "run")
    again = pf.Guard(0.1, **FLOWS).fit(X, checkpoint=tmp_path / "run")
    np.testing.assert_array_equal(again.log_prob(X), whole.log_prob(X))
    np.testing.assert_array_equal(again.p_value(X), whole.p_value(X))


def test_a_guard_of_images_goes_on(interrupted, tmp_path) -> None:
    images = torch.randint(0, 256, (90, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    make = lambda: pf.Guard(0.2, model="nice", max_steps=8, random_state=0)  # noqa: E731
    whole = make().fit(images)
    interrupted(4)
    with pytest.raises(KeyboardInterrupt):
        make().fit(images, checkpoint=tmp_path / "run")
    interrupted(10**6)
    again = make().fit(images, checkpoint=tmp_path / "run")
    np.testing.assert_array_equal(again.anomaly_score(images[:20]), whole.anomaly_score(images[:20]))


def test_impossible_checkpoints(tmp_path) -> None:
    with pytest.raises(ConfigError, match="max_time has no checkpoint"):
        pf.Guard(0.1, max_time=60, **FLOWS).fit(X, checkpoint=tmp_path / "run")
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="cannot make the folder"):
        pf.Guard(0.1, **FLOWS).fit(X, checkpoint=tmp_path / "file")
    pf.Guard(0.1, effort="fast", random_state=0).fit(X, checkpoint=tmp_path / "none")
    assert not (tmp_path / "none").exists()  # nothing trains


@pytest.mark.parametrize("output", ["no/folder/g.safetensors", ".", "x.csv"])
def test_the_output_is_checked_before_anything_is_fitted(monkeypatch, table, tmp_path, capsys, output: str) -> None:
    monkeypatch.setattr(pf.Guard, "fit", lambda *arguments, **options: pytest.fail("it was fitted first"))
    before = table.read_bytes()
    assert main(["fit", str(table), "-o", str(tmp_path / output)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert table.read_bytes() == before


@pytest.mark.slow
def test_a_real_ctrl_c_leaves_a_checkpoint(table, tmp_path) -> None:
    output = tmp_path / "g.safetensors"
    words = ["fit", str(table), "-o", str(output), "--density", "--effort", "fast", "--max-steps", "3000", "-q"]
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from pushforward.cli import program; "
        "program()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    folder, end = Path(f"{output}.checkpoint"), time.monotonic() + 300
    while not (folder.is_dir() and any(folder.iterdir())) and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert err.strip().endswith(f"goes on: {shlex.join(['pushforward', *words])}")
    assert not output.exists()
    assert list(folder.glob("*.safetensors*"))


def test_a_fit_that_fails_leaves_no_folder(tmp_path, capsys) -> None:
    np.save(tmp_path / "few.npy", np.zeros((15, 8, 8), np.uint8))
    words = ["fit", str(tmp_path / "few.npy"), "-o", str(tmp_path / "g.safetensors"), "-q"]
    assert main(words) != 0
    assert "at least" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["few.npy"]
    own = tmp_path / "g.safetensors.checkpoint"  # one that was there stays
    own.mkdir()
    assert main(words) != 0
    assert own.exists()
