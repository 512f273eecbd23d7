"""What is released: the archive and the wheel are valid, and the README's code runs with the installed wheel, not with the checkout.

``make release-check`` runs this. The new environment takes the dependencies of the present one; with PUSHFORWARD_RELEASE_FULL=1 it
installs them anew.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import site
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="not in the source tree")]


def run(words: list[str], folder: Path, **more: str) -> str:
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        words, cwd=folder, capture_output=True, text=True, check=False, env=clean | {"OMP_NUM_THREADS": "1"} | more
    )
    assert done.returncode == 0, (words, done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive and the wheel, made from a copy of the tracked files, so that nothing is built in the checkout."""
    pytest.importorskip("build")
    tree = tmp_path_factory.mktemp("release")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    for name in filter(None, tracked.split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist"], tree)
    return tree / "dist"


@pytest.fixture(scope="module")
def python(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter of a new environment with the wheel."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    interpreter = folder / "bin" / "python"
    (wheel,) = dist.glob("*.whl")
    if os.environ.get("PUSHFORWARD_RELEASE_FULL") == "1":
        run([str(interpreter), "-m", "pip", "install", "--quiet", str(wheel)], folder)
    else:
        run([str(interpreter), "-m", "pip", "install", "--quiet", "--no-deps", str(wheel)], folder)
        (packages,) = (folder / "lib").glob("*/site-packages")
        # Links of an editable install in these folders are not followed, so the wheel is what is imported.
        (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return str(interpreter)


def test_the_archive_and_the_wheel_are_valid(dist: Path) -> None:
    pytest.importorskip("twine")
    files = sorted(str(path) for path in dist.iterdir())
    assert len(files) == 2
    assert run([sys.executable, "-m", "twine", "check", "--strict", *files], dist).count("PASSED") == 2


def test_the_wheel_has_types_data_and_licenses_and_no_tests(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "pushforward/py.typed" in names
    assert {"pushforward/data/samples/README.md", "pushforward/data/samples/thyroid.csv.gz"} <= set(names)
    assert any(name.endswith("LICENSE") for name in names)
    assert not [name for name in names if name.split("/")[0] in ("tests", "benchmarks", "papers", "docs", "examples")]


def test_the_code_of_the_readme_runs_with_the_wheel(python: str, tmp_path: Path) -> None:
    where = run([python, "-I", "-c", "import pushforward; print(pushforward.__file__)"], tmp_path)
    assert str(Path(python).parents[1]) in where
    assert str(ROOT) not in where
    text = (ROOT / "README.md").read_text()
    found = re.findall(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", text, flags=re.S)
    assert len(found) >= 2
    for code, shown in found:
        assert run([python, "-I", "-W", "error", "-c", code], tmp_path).rstrip() == shown.rstrip()


def test_the_command_of_the_wheel_runs(python: str, tmp_path: Path) -> None:
    command = str(Path(python).parent / "pushforward")
    assert "pushforward" in run([command, "info", "--system"], tmp_path)


def test_the_bill_of_materials_names_what_is_needed_and_contained(tmp_path: Path) -> None:
    pytest.importorskip("cyclonedx_py")
    run([sys.executable, str(ROOT / "release" / "sbom.py"), "-o", "sbom.json"], tmp_path)  # it validates what it writes
    bill = json.loads((tmp_path / "sbom.json").read_text())
    parts = {part["name"].lower(): part for part in bill["components"]}
    needed = run([sys.executable, str(ROOT / "release" / "lowest.py")], tmp_path).split()
    assert {line.partition("==")[0] for line in needed if "==" in line} | {
        "torch",
        "joblib",
        "click" if "click" in parts else "shellingham",
    } <= set(parts)
    assert not {"pytest", "sphinx", "mlflow-skinny", "fastapi"} & set(parts)
    assert all(
        part.get("version") and part["purl"].startswith("pkg:pypi/")
        for part in parts.values()
        if part["type"] == "library"
    )
    data = {part["name"]: part for part in bill["components"] if part["type"] == "data"}
    folder = ROOT / "src" / "pushforward" / "data" / "samples"
    assert set(data) == {path.name for path in folder.iterdir() if path.suffix in (".gz", ".npz", ".safetensors")}
    text = (folder / "README.md").read_text()
    assert all(name in text and part["licenses"][0]["license"]["id"] for name, part in data.items())


def test_the_lowest_versions_are_those_of_the_project() -> None:
    words = [word for word in run([sys.executable, str(ROOT / "release" / "lowest.py")], ROOT).split() if "==" in word]
    text = (ROOT / "pyproject.toml").read_text()
    assert len(words) >= 12
    assert all(f'"{word.replace("==", ">=")}"' in text for word in words)
