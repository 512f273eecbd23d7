"""The examples of docs/export.md run, in the order of the page."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from run_node import package

PAGE = (Path(__file__).parents[2] / "docs" / "export.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.S)


def run(words: list[str], folder: Path, **options) -> str:
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=300, check=False, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_examples_run(tmp_path):
    pytest.importorskip("onnxruntime")
    score, plain, network = blocks("python")
    assert " of 3772" in run([sys.executable, "-W", "ignore", "-c", score], tmp_path)
    guard = score.replace("guard.onnx", "guard.pt2").split("session =")[0]
    run([sys.executable, "-W", "ignore", "-c", guard], tmp_path)
    assert "'age', 'TSH'" in (printed := run([sys.executable, "-W", "ignore", "-c", plain], tmp_path))
    assert "tensor([False,  True])" in printed
    assert "tensor([" in run([sys.executable, "-W", "ignore", "-c", network], tmp_path)
    path = package("onnxruntime-node")
    assert shutil.which("node") is not None
    script = blocks("js")[0].replace('"onnxruntime-node"', repr(path))
    assert "[ 0, 1 ]" in run(["node", "-e", script], tmp_path)
