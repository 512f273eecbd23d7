"""Simulators in processes: which rows are lost, whose time counts, and what a process cannot load."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pushforward import inference
from pushforward.errors import ConfigError, InputError, PushforwardWarning
from pushforward.inference import processes
from pushforward.inference.processes import LATE, Workers
from pushforward.inference.simulate import run_simulator

from .closed_form import PRIOR, simulator

ROWS = torch.arange(20.0)[:, None].expand(-1, 2)


def hangs(theta):
    if bool((theta[:, 0] == 13).any()):
        time.sleep(60)
    return theta + 1


def dies(theta):
    if bool((theta[:, 0] == 3).any()):
        os._exit(7)
    return theta + 1


def test_a_timeout_needs_processes():
    with pytest.raises(InputError, match="workers=1"):
        inference.simulate(simulator, PRIOR, 10, timeout=1.0)


@pytest.mark.parametrize("bad", ["text", 3, None])
def test_what_is_no_simulator_is_refused(bad):
    with pytest.raises(ConfigError, match=f"simulator must be a function .* got {type(bad).__name__}"):
        inference.simulate(bad, PRIOR, 10)


def test_a_simulator_that_no_process_can_get_is_refused():
    def local(theta):
        return theta

    for bad in (lambda theta: theta, local):
        with pytest.raises(ConfigError, match="define it at the top level of a module") as caught:
            inference.simulate(bad, PRIOR, 10, workers=2)
        assert "shape" not in str(caught.value)


def test_every_run_late_is_no_matter_of_shapes(monkeypatch):
    """The sentence about shapes belongs to other failures."""
    monkeypatch.setattr("pushforward.inference.processes.Workers.run", lambda self, tasks: [f"{LATE} 2 s"] * len(tasks))
    with pytest.raises(InputError, match=r"did not end within 2 s\. Give more time \(timeout=\)"):
        inference.simulate(simulator, PRIOR, 10, workers=1, timeout=2)


def in_threads(monkeypatch, start_time):
    """Threads in place of processes, which start in this time."""

    def start(function, number):
        here, there = multiprocessing.Pipe()

        def work():
            time.sleep(start_time)
            with contextlib.suppress(OSError):  # the pipe of one that was late is closed
                processes._work(there, function)
            there.close()

        threading.Thread(target=work, daemon=True).start()
        return processes._Worker(SimpleNamespace(kill=bool, join=bool, exitcode=1), here)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(processes, "_start", start)


def test_the_start_does_not_count_and_no_run_pays_for_another(monkeypatch):
    in_threads(monkeypatch, start_time=0.6)
    seconds = [0.0] * 20
    seconds[13] = 2.0
    with Workers(time.sleep, 2, timeout=0.5) as workers:
        assert workers.run(seconds) == [f"{LATE} 0.5 s" if value else None for value in seconds]
        assert workers.run([0.0, 0.0]) == [None, None]


def test_a_worker_that_cannot_start_or_load_says_what_to_do(monkeypatch):
    monkeypatch.setattr(processes, "_work", lambda *_: None)
    in_threads(monkeypatch, start_time=0.0)
    with (
        pytest.raises(ConfigError, match=r"put the call of simulate under `if __name__ == "),
        Workers(len, 2, None) as workers,
    ):
        workers.run([1, 2])
    monkeypatch.undo()
    in_threads(monkeypatch, start_time=0.0)
    monkeypatch.setattr(processes.pickle, "loads", lambda _: {}["simulator"])
    with (
        pytest.raises(ConfigError, match=r"cannot load the simulator \(KeyError.*top level of a module"),
        Workers(len, 1, None) as workers,
    ):
        workers.run([1])


@pytest.mark.slow
def test_only_the_slow_row_is_lost():
    """The start of the processes takes longer than the limit, and no time of one run counts for another."""
    with pytest.warns(PushforwardWarning, match="1 of 20 runs .* run 13: it did not end within 1 s"):
        runs = inference.simulate(hangs, PRIOR, 20, theta=ROWS, batch_size=1, workers=2, timeout=1)
    assert runs.failures == {13: "it did not end within 1 s"}
    assert (~runs.valid).nonzero().tolist() == [[13]]
    torch.testing.assert_close(runs.x[runs.valid], ROWS[runs.valid] + 1)


@pytest.mark.slow
def test_a_process_that_ends_loses_its_row_only():
    runs = run_simulator(dies, PRIOR, 6, theta=ROWS[:6], batch_size=6, workers=1)
    assert runs.failures == {3: "its process ended with exit code 7"}


@pytest.mark.slow
def test_processes_give_the_same_rows():
    expected = inference.simulate(simulator, PRIOR, 60, batch_size=20).x
    assert torch.equal(inference.simulate(simulator, PRIOR, 60, batch_size=20, workers=2).x, expected)


SCRIPT = """
import torch, pushforward as pf
{before}
    def simulator(theta):
        return theta
{call}
    pf.inference.simulate(simulator, torch.distributions.Normal(torch.zeros(2), 1.0), 10, workers=1)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "call", "message"),
    [
        ("if True:", "if True:", "put the call of simulate under `if __name__ == "),
        ("if __name__ == '__main__':", "if __name__ == '__main__':", "cannot load the simulator (AttributeError: "),
    ],
    ids=["no guard", "simulator under the guard"],
)
def test_a_script_that_workers_cannot_load_ends_with_one_sentence(tmp_path, before, call, message):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(before=before, call=call))
    source = str(Path(inference.__file__).parents[2])
    found = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True, text=True, timeout=120, check=False, env=os.environ | {"PYTHONPATH": source},
    )  # fmt: skip
    assert found.returncode == 1
    assert found.stderr.count("Traceback") == 1
    assert found.stderr.splitlines()[-1].startswith("pushforward.errors.ConfigError: a worker process ")
    assert message in found.stderr
