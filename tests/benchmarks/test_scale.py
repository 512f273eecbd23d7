"""The model of the cost, and the memory of processes, of the benchmark of scale."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest

from benchmarks.scale import cost, family, peak


def test_the_line_is_found_from_runs_with_one_worker():
    records = [{"rows": rows, "workers": 1, "cpu_s": 4 + 15 * rows / 1e6} for rows in (10**5, 10**6, 10**7)]
    records.append({"rows": 10**6, "workers": 2, "cpu_s": 1000})
    assert cost(records) == pytest.approx((4, 15))


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="this system has no /proc")
def test_memory_is_that_of_the_system_and_children_are_found():
    assert peak(os.getpid()) == pytest.approx(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, rel=0.05)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert child.pid in family(os.getpid())
    finally:
        child.communicate(b"\n")
    assert peak(child.pid) == 0
