"""What an installation builds: wheels with and without kernels, with all data, also where the compiler fails."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
setuptools = pytest.importorskip("setuptools", minversion="77")
pytestmark = pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="not in the source tree")


@pytest.fixture
def tree(tmp_path) -> Path:
    """A copy of what the build reads."""
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / name)
    ignored = shutil.ignore_patterns("*.so", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=ignored)
    return tmp_path


def build(tree: Path, command: str, **environment: str) -> Path:
    """Runs the build and returns the file that it made."""
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PUSHFORWARD_BUILD_KERNELS")}
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", command],
        cwd=tree,
        env=env | environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    (made,) = (tree / "dist").iterdir()
    return made


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as file:
        return set(file.namelist())


def expected() -> set[str]:
    """All modules and data of the package."""
    files = (path for path in (ROOT / "src" / "pushforward").rglob("*") if path.is_file())
    left_out = {".c", ".h", ".so", ".pyc"}
    return {str(path.relative_to(ROOT / "src")) for path in files if path.suffix not in left_out}


def content(wheel: Path) -> set[str]:
    return {name for name in names(wheel) if name.startswith("pushforward/")}


def test_a_pure_wheel_has_everything_but_the_kernels(tree):
    wheel = build(tree, "bdist_wheel", PUSHFORWARD_BUILD_KERNELS="0")
    assert wheel.name.endswith("-py3-none-any.whl")
    assert content(wheel) == expected()


def test_the_build_goes_on_where_the_compiler_fails(tree):
    assert content(build(tree, "bdist_wheel", CC="false")) == expected()


def test_the_source_distribution_has_what_a_build_needs(tree):
    with tarfile.open(build(tree, "sdist")) as file:
        found = {name.split("/", 1)[1] for name in file.getnames() if "/" in name}
    kernels = {str(path.relative_to(ROOT)) for suffix in "ch" for path in (ROOT / "src").rglob(f"*.{suffix}")}
    assert len(kernels) > 5
    assert kernels | {"setup.py", "pyproject.toml", "LICENSE"} | {f"src/{name}" for name in expected()} <= found
    assert not [name for name in found if name.endswith(".so")]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_a_wheel_with_kernels_is_for_one_platform_and_every_version_of_python(tree):
    wheel = build(tree, "bdist_wheel")
    assert "-py3-none-" in wheel.name
    assert "-any.whl" not in wheel.name
    assert content(wheel) == expected() | {"pushforward/kernels/libkernels.so"}
