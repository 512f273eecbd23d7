"""Runs that are killed with SIGKILL and resumed end like undisturbed runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KINDS = ["array", "dataset", "loader"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs SIGKILL and fork")
def test_a_killed_and_resumed_run_ends_bitwise_equal(tmp_path):
    script = Path(__file__).with_name("killing.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(  # one process for all kinds of data, which imports torch once
        [sys.executable, "-W", "error", script, tmp_path, "3", *KINDS], capture_output=True, text=True, env=environment,
        timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert list(found) == KINDS
    for kind, runs in found.items():
        whole, killed, died = runs["whole"], runs["killed"], runs["died"]
        assert died[0] == -1, kind  # before the first checkpoint had its name
        assert len([step for step in died if 0 < step < whole["steps"]]) >= 3, (kind, died)
        assert len(set(died)) >= 4, (kind, died)
        assert killed == whole, kind
        assert whole["logged"] == [event["step"] for event in whole["history"]], kind
        assert 0 < whole["best_step"] < whole["steps"], kind  # so the best weights came from the file
        assert runs["left"] == ["metrics.jsonl", "run.safetensors", "summary.json"], kind
