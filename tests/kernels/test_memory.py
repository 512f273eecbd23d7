"""Freed memory stays in the process while a model trains and returns to the system after; no allocator setting changes."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys

import pytest
import torch

from pushforward.kernels import memory
from pushforward.kernels.memory import freed_memory_kept

glibc = pytest.mark.skipif(not memory._glibc(), reason="another C library than glibc")

FAULTS = """
import resource, torch
from pathlib import Path
from pushforward.kernels.memory import freed_memory_kept

def faults():  # of eight blocks of 20 MiB written in turn, after the first round
    for turn in range(4):
        if turn == 1:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        kept = [torch.empty(20 << 20, dtype=torch.uint8).fill_(1) for _ in range(8)]
        del kept
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() >> 20

with freed_memory_kept():
    with freed_memory_kept():
        inner = faults()
    outer, held = faults(), resident()
print(inner, outer, held - resident())
"""

SETTINGS = """
import ctypes, sys, torch
import pushforward as pf
from pushforward.kernels.memory import freed_memory_kept

class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in
                "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]

mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = Info

def mapped(size):  # whether a block of this size is mapped on its own, and not taken from the heap
    before = mallinfo().hblks
    block = torch.empty(size, dtype=torch.uint8)
    return mallinfo().hblks > before

if sys.argv[1] == "fit":
    pf.fit(pf.models.NICE(2, hidden=(8,)), torch.randn(64, 2), max_steps=3, progress="silent")
else:
    torch.empty(31 << 20, dtype=torch.uint8)
# Large blocks are mapped. The threshold has followed a block of 31 MiB and still follows; mallopt would have stopped it.
print(mapped(40 << 20), mapped(30 << 20), mapped((31 << 20) + (1 << 19)), mapped((31 << 20) + (1 << 18)))
"""


def run(script: str, *arguments: str, **environment: str) -> list[str]:
    env = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@glibc
@pytest.mark.skipif(platform.system() != "Linux", reason="reads /proc")
def test_freed_blocks_are_used_again_and_returned_at_the_end():
    huge = 3 * 160 >> 1  # faults of three rounds if pages were of 2 MiB, at least
    inner, outer, returned = map(int, run(FAULTS))
    assert max(inner, outer) < huge
    assert returned > 90


@pytest.mark.skipif(platform.system() != "Linux", reason="reads /proc")
def test_it_can_be_turned_off():
    inner, outer, returned = map(int, run(FAULTS, PUSHFORWARD_KEEP_MEMORY="0"))
    assert min(inner, outer) > 3 * 160 >> 1
    assert returned < 90


@glibc
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="needs glibc 2.33")
def test_fit_changes_no_setting_of_the_allocator():
    assert run(SETTINGS, "fit") == run(SETTINGS, "one block") == ["True", "False", "True", "False"]


def test_nothing_is_kept_where_it_cannot_be_reserved(monkeypatch):
    monkeypatch.setattr(memory, "_BLOCK", 1 << 60)
    with freed_memory_kept():
        assert torch.ones(3).sum() == 3
