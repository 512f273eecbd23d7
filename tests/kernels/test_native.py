"""Compiling at first use: where it goes, and what happens where it cannot be done."""

from __future__ import annotations

import os
import stat
import subprocess
import sys

import pytest

from pushforward.errors import ConfigError
from pushforward.kernels import kernels, use_kernels
from pushforward.kernels.native import _compiler

pytestmark = pytest.mark.skipif(_compiler() is None, reason="there is no C compiler")

SCRIPT = """
import torch
from pushforward.kernels import SplineSpec, spline, use_kernels
from pushforward.kernels import native
law = SplineSpec(4, 2.0, 1e-2, 3.0)
x, raw = torch.linspace(-3, 3, 50), torch.randn(law.parameters, 50, generator=torch.Generator().manual_seed(0))
with use_kernels("plain"):
    expected = spline(x, raw, law)[0]
assert (spline(x, raw, law)[0] - expected).abs().max() < 1e-5
found = native._library("spline.c", torch.float32)
print(found if isinstance(found, str) else "native")
"""


def in_a_process(folder, **environment: str) -> str:
    """What the script says in a fresh process with an empty cache in ``folder``."""
    env = os.environ | {"PUSHFORWARD_CACHE": str(folder), "OMP_NUM_THREADS": "1"} | environment
    run = subprocess.run([sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_it_is_compiled_once_and_kept(tmp_path):
    assert in_a_process(tmp_path) == "native"
    files = list((tmp_path / "pushforward").iterdir())
    assert len(files) == 1  # one type was used, and no temporary file is left
    made = files[0].stat().st_mtime_ns
    assert in_a_process(tmp_path) == "native"
    assert files[0].stat().st_mtime_ns == made


def test_a_damaged_file_is_made_again(tmp_path):
    in_a_process(tmp_path)
    (file,) = (tmp_path / "pushforward").iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    assert in_a_process(tmp_path) == "native"
    assert len(file.read_bytes()) == len(whole)


def test_without_a_compiler_plain_operations_are_used(tmp_path):
    assert "no C compiler" in in_a_process(tmp_path, PATH=str(tmp_path))


def test_a_compiler_that_fails_is_not_an_error(tmp_path):
    bad = tmp_path / "bad-cc"
    bad.write_text("#!/bin/sh\necho it does not work >&2\nexit 1\n")
    bad.chmod(bad.stat().st_mode | stat.S_IXUSR)
    assert "it does not work" in in_a_process(tmp_path, CC=str(bad))


def test_a_folder_that_others_can_write_to_is_not_trusted(tmp_path):
    folder = tmp_path / "pushforward"
    folder.mkdir()
    folder.chmod(0o777)
    assert in_a_process(tmp_path) == "native"
    assert list(folder.iterdir()) == []


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
        with use_kernels("native"):
            assert kernels() == "native"
        assert kernels() == "plain"
    assert kernels() == before
