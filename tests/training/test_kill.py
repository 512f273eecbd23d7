"""Runs that are killed with SIGKILL end as if nothing had happened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs SIGKILL and fork")


@pytest.mark.parametrize("kind", ["array", "dataset", "loader"])
def test_a_killed_and_resumed_run_ends_bitwise_equal(kind, tmp_path):
    script = Path(__file__).with_name("killing.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", script, tmp_path, kind, "3"], capture_output=True, text=True, env=environment,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    whole, killed, died = found["whole"], found["killed"], found["died"]
    assert died[0] == -1  # before the first checkpoint had its name
    assert len([step for step in died if 0 < step < whole["steps"]]) >= 3, died
    assert len(set(died)) >= 4, died
    assert killed == whole
    assert whole["logged"] == [event["step"] for event in whole["history"]]
    assert 0 < whole["best_step"] < whole["steps"]  # so the best weights came from the file
    assert found["left"] == ["metrics.jsonl", "run.safetensors", "summary.json"]
