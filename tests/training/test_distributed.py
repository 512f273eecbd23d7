"""``fit(distributed=True)``: two processes that share each batch make the steps of one process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import pushforward as pf
from pushforward.errors import ConfigError
from pushforward.training import fit_members
from training.tiny import gaussian, rows

HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def run(folder: Path, *cases: str) -> dict:
    done = subprocess.run(
        [sys.executable, HERE / "sharing.py", folder, *cases],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check_equal(one: dict, two: list[dict]) -> None:
    """In float64 nothing but the order of the sums differs; the two processes agree bit by bit."""
    assert two[0] == two[1]
    assert one["steps"] == two[0]["steps"] == 30
    np.testing.assert_allclose(two[0]["weights"], one["weights"], rtol=1e-9, atol=1e-11)
    assert np.abs(one["weights"]).max() > 0.1
    mine, theirs = (np.array(run["history"], dtype=float) for run in (two[0], one))
    np.testing.assert_allclose(mine, theirs, rtol=1e-9)


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@needs_fork
def test_two_processes_end_with_the_weights_of_one(tmp_path):
    found = run(tmp_path, "array", "weights")
    for kind in ("array", "weights"):
        check_equal(found[kind]["one"], found[kind]["two"])


@needs_fork
@pytest.mark.slow
def test_the_same_for_other_data_and_after_interruptions(tmp_path):
    same = ("array", "weights", "microbatches", "dataset", "loader", "no held-out rows")
    found = run(tmp_path, *same, "resumed", "interrupted", "noise", "time")
    for kind in same:
        check_equal(found[kind]["one"], found[kind]["two"])

    whole = found["array"]["two"][0]
    for process in found["resumed"]:
        assert (process["first"]["steps"], process["first"]["stopped"]) == (20, "callback")
        assert process["again"]["weights"] == whole["weights"]
        assert process["again"]["history"] == whole["history"]

    # One process gets a SIGINT: both stop after the same step, and the same call then goes on.
    first, second = found["interrupted"]
    assert first[0].startswith("interrupted at step ")
    assert first[0].endswith("; the same call resumes from FILE")
    assert second[0] == first[0].partition("; the same call")[0]
    assert first[1] == second[1] == found["no held-out rows"]["two"][0]["weights"]

    one, two = found["noise"]
    assert one == two
    one, two = found["time"]
    assert one == two
    assert one["stopped"] == "max_time"


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: pf.fit(gaussian(), rows(50), distributed=True), "torchrun --nproc-per-node 2"),
        (lambda: pf.fit(gaussian(), rows(50), distributed="yes"), "distributed must be"),
        (
            lambda: pf.fit(pf.models.MAF(2, batch_norm=True), rows(50), distributed=True),
            "has batch normalization, whose statistics are those of a whole batch",
        ),
        (lambda: fit_members([gaussian(), gaussian()], rows(50), distributed=True), "torchrun"),
    ],
)
def test_what_cannot_be_is_one_sentence(monkeypatch, call, sentence):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ConfigError, match=sentence):
        call()
    assert not torch.distributed.is_initialized()


PROGRAM = """
import sys, torch, pushforward as pf

torch.manual_seed(0)
x = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0))
model = pf.models.NSF(2, hidden=(16,))
pf.fit(model, x, max_steps=300, batch_size=64, evaluate_every=50, checkpoint=sys.argv[1] + "/run", checkpoint_every=5,
       progress="silent", distributed=True)
import os
pf.save(model, sys.argv[1] + "/model" + os.environ["RANK"])
"""


@pytest.mark.slow
def test_torchrun_and_kill(tmp_path):
    """A run that is killed with SIGKILL in the middle and started again ends bit by bit like one that was not."""
    (tmp_path / "program.py").write_text(PROGRAM)
    files = []
    for name in ("whole", "killed"):
        folder = tmp_path / name
        folder.mkdir()
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        command += [str(tmp_path / "program.py"), str(folder)]
        if name == "killed":
            running = subprocess.Popen(command, env=ENVIRONMENT, start_new_session=True, stderr=subprocess.DEVNULL)
            while not (folder / "run").exists() or pf.io.read(folder / "run")[0]["state"]["position"][0] < 40:
                assert running.poll() is None
                time.sleep(0.01)
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()
            step = pf.io.read(folder / "run")[0]["state"]["position"][0]
            assert 40 <= step < 300
        done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        files.append([(folder / f"model{rank}").read_bytes() for rank in (0, 1)])
    assert files[0][0] == files[0][1] == files[1][0] == files[1][1]
