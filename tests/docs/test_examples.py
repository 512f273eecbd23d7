"""The code that the README and the architecture page show runs as printed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.S)


@pytest.mark.parametrize("index", range(len(blocks("README.md"))))
def test_readme_block_runs(index: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", blocks("README.md")[index]], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    if index == 0:
        assert "[ 1 -1]" in done.stdout


def test_readme_commands_run(tmp_path: Path) -> None:
    import numpy as np

    rows = np.random.default_rng(0).normal(size=(300, 2))
    for name in ("train.csv", "new.csv"):
        np.savetxt(tmp_path / name, rows, delimiter=",", header="a,b", comments="")
    commands = [
        line
        for line in re.findall(r"^pushforward .*$", (ROOT / "README.md").read_text(), flags=re.M)
        if " demo" not in line
    ]
    assert len(commands) == 5
    for command in commands:
        words = command.split()[1:]
        if words[0] == "fit":
            words += ["--max-steps", "20", "--quiet"]
        done = subprocess.run(
            [sys.executable, "-m", "pushforward", *words], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, (command, done.stderr)
    header = (tmp_path / "new.csv").read_text().splitlines()[0]
    assert header.replace('"', "") == "a,b"  # `sample` wrote the training table's columns


def test_architecture_example_is_a_correct_map() -> None:
    from pushforward.registry import _CLASSES

    scope: dict = {}
    try:
        exec(blocks("docs/architecture.md")[0], scope)
        cube = scope["Cube"](2).double()
        x = torch.randn(5, 2, dtype=torch.float64) * 4
        step = cube.encode(x)
        torch.testing.assert_close(cube.decode(step.z), x, atol=1e-9, rtol=1e-9)
        jacobian = torch.stack([torch.autograd.functional.jacobian(lambda row: cube.encode(row).z, row) for row in x])
        torch.testing.assert_close(step.contribution, torch.linalg.slogdet(jacobian)[1])
    finally:
        _CLASSES.pop("transforms.Cube", None)
