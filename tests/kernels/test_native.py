"""Which native kernels are used: modes, levels of the instruction set, and what happens where there are none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pushforward.errors import ConfigError
from pushforward.kernels import SplineSettings, conv_stack, description, kernels, native, spline, use_kernels

FACTS = description()
installed = pytest.mark.skipif(not FACTS["installed"], reason="the native kernels are not installed")


@pytest.fixture
def fresh():
    """Nothing is cached of the shared library, before and after."""
    cached = native._load, native._level, native._functions
    for function in cached:
        function.cache_clear()
    yield
    for function in cached:
        function.cache_clear()


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
@pytest.mark.skipif(os.environ.get("PUSHFORWARD_BUILD_KERNELS") == "0", reason="they were left out")
def test_with_a_compiler_they_are_installed():
    assert FACTS["installed"], f"{FACTS['reason']}: install again"


@installed
def test_the_best_level_is_in_use():
    assert FACTS["level"] is not None
    capability = torch.backends.cpu.get_cpu_capability()  # of torch, by its own means
    if capability in ("AVX2", "AVX512") and not os.environ.get("PUSHFORWARD_KERNELS"):
        assert FACTS["level"] == {"AVX2": "x86-64-v3", "AVX512": "x86-64-v4"}[capability]


def test_the_description_says_what_is_in_use_and_why():
    with use_kernels("plain"):
        plain = description()
    assert plain["mode"] == "plain"
    assert plain["level"] is None
    assert plain["reason"]
    assert plain["threads"] == torch.get_num_threads()
    assert plain["installed"] == FACTS["installed"] == bool(plain["levels"])
    assert bool(FACTS["level"]) != bool(FACTS["reason"])


@installed
@pytest.mark.parametrize("level", FACTS["levels"])
def test_a_level_can_be_forced(level):
    if level not in native._load().supported:
        with pytest.raises(ConfigError, match="this processor does not support them"), use_kernels(level):
            pass
        return
    with use_kernels(level):
        assert kernels() == description()["level"] == level
        functions = native.library("spline", torch.float32)
    assert functions.forward.__name__ == f"spline_forward_float32_{level.replace('-', '_')}"


@installed
def test_a_level_that_was_not_built_is_refused():
    level = next(level for level in native._LEVELS if level not in FACTS["levels"])
    with pytest.raises(ConfigError, match=f"kernels '{level}' cannot be used: they were not built"), use_kernels(level):
        pass


@installed
def test_a_level_that_the_processor_lacks_is_refused(monkeypatch, fresh):
    found = native._load()
    monkeypatch.setattr(native, "_load", lambda: found._replace(supported=found.supported[-1:]))
    assert description()["level"] == found.supported[-1]
    if len(found.built) > 1:
        with pytest.raises(ConfigError, match="this processor does not support them"), use_kernels(found.built[0]):
            pass


def test_missing_kernels_leave_plain_operations(monkeypatch, fresh, tmp_path):
    monkeypatch.delenv("PUSHFORWARD_KERNELS", raising=False)
    monkeypatch.setattr(native, "_FILE", tmp_path / "missing.so")
    facts = description()
    assert (facts["level"], facts["installed"], facts["levels"], facts["openmp"]) == (None, False, [], False)
    assert "not installed" in facts["reason"]
    assert native.library("spline", torch.float32) is None
    for mode in ("native", "x86-64-v3"):
        with pytest.raises(ConfigError, match="not installed"), use_kernels(mode):
            pass


def test_a_damaged_file_leaves_plain_operations(monkeypatch, fresh, tmp_path):
    monkeypatch.delenv("PUSHFORWARD_KERNELS", raising=False)
    (tmp_path / "damaged.so").write_bytes(b"\x7fELF")
    monkeypatch.setattr(native, "_FILE", tmp_path / "damaged.so")
    assert description()["level"] is None
    assert "cannot be loaded" in description()["reason"]


def test_unknown_modes_are_refused(monkeypatch):
    with pytest.raises(ConfigError, match="one of auto, native, plain"), use_kernels("fast"):
        pass
    monkeypatch.setenv("PUSHFORWARD_KERNELS", "fast")
    with pytest.raises(ConfigError, match="PUSHFORWARD_KERNELS"):
        kernels()


def test_the_mode_ends_with_its_block():
    before = kernels()
    with use_kernels("plain"):
        assert kernels() == "plain"
        with use_kernels("auto"):
            assert kernels() == "auto"
        assert kernels() == "plain"
    assert kernels() == before


@pytest.mark.parametrize("change", [lambda t: t, torch._neg_view, lambda t: torch.complex(t, -t).conj().imag])
def test_numbers_whose_sign_is_not_in_memory_are_read_with_it(change):
    x, weight, bias, raw = torch.randn(2, 1, 4, 4), torch.randn(1, 1, 3, 3), torch.zeros(1), torch.randn(11, 6)
    settings = SplineSettings(4, 3.0, 1e-2, 4.6)
    for call in (
        lambda: conv_stack(change(x), [weight, weight], [bias, bias]),
        lambda: spline(torch.zeros(6), change(raw), settings)[0],
    ):
        with use_kernels("plain"):
            expected = call()
        torch.testing.assert_close(call(), expected, rtol=1e-4, atol=1e-4)


SCRIPT = """
import os, sys
allowed = True
def audit(event, arguments):
    if not allowed and event in ("subprocess.Popen", "os.posix_spawn", "os.exec", "os.system", "os.fork"):
        raise RuntimeError(f"{event} {arguments}")
sys.addaudithook(audit)
import torch
import pushforward as pf
from pushforward.kernels import SplineSettings, description, spline
allowed = False
torch.manual_seed(0)
model = pf.models.NSF(3)
model.log_prob(torch.zeros(1, 3))
model.sample(5, seed=0)
print(description()["level"])
"""


@pytest.mark.parametrize("mode", ["auto", "plain", *FACTS["levels"][:1]])
def test_no_process_is_started_and_nothing_is_written(mode, tmp_path):
    """A compiler would be found here, and the home folder is empty."""
    env = os.environ | {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "PUSHFORWARD_KERNELS": mode}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=env | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    best = FACTS["levels"] and native._load().supported[0]
    assert done.stdout.strip() == {"auto": str(best or None), "plain": "None"}.get(mode, mode)
    assert not list(Path(tmp_path).rglob("*"))
