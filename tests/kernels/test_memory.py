"""Freed memory stays with the process while a model trains, and goes back to the system after."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from pushforward.kernels.memory import _glibc, freed_memory_kept

SCRIPT = """
import resource, torch
from pathlib import Path
from pushforward.kernels.memory import freed_memory_kept

def faults():  # of two blocks of 100 MiB written in turn, after the first round
    for turn in range(4):
        if turn == 1:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(2):
            torch.empty(100 << 20, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() >> 20

with freed_memory_kept():
    with freed_memory_kept():
        inner = faults()
    outer, held = faults(), resident()
print(inner, outer, held - resident(), faults())
"""


def run(**environment: str) -> list[int]:
    env = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return [int(part) for part in done.stdout.split()]


@pytest.mark.skipif(_glibc() is None, reason="another C library than glibc, or it is turned off")
def test_freed_blocks_are_used_again_and_returned_at_the_end():
    inner, outer, returned, after = run()
    huge = 200 << 20 >> 21  # faults of six blocks if pages were of 2 MiB, at least
    assert max(inner, outer) < huge < after
    assert returned > 90


@pytest.mark.skipif(platform.system() != "Linux", reason="reads /proc")
def test_it_can_be_turned_off(monkeypatch):
    inner, outer, returned, _ = run(PUSHFORWARD_KEEP_MEMORY="0")
    assert min(inner, outer) > 200 << 20 >> 21
    assert returned < 90
    monkeypatch.setenv("PUSHFORWARD_KEEP_MEMORY", "0")
    assert _glibc() is None
    with freed_memory_kept():
        pass
