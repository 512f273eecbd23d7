"""Run an ONNX file in Node, if there is Node and its package."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

RUNNER = Path(__file__).parents[2] / "benchmarks" / "export" / "run.mjs"


def package(name: str) -> str:
    """Path of an npm package; the test is skipped without Node or without it."""
    if shutil.which("node") is None:
        pytest.skip("Node is not installed")
    folders = [os.environ.get("PUSHFORWARD_NODE_MODULES", ""), "node_modules"]
    for folder in folders:
        if folder and Path(folder, name).is_dir():
            return str(Path(folder, name).resolve())
    pytest.skip(f"{name} is not installed: npm install --ignore-scripts {name}, and PUSHFORWARD_NODE_MODULES")


def run_node(name: str, model: Path, feeds: dict[str, np.ndarray], folder: Path) -> dict[str, np.ndarray]:
    """The outputs of a model in Node for inputs by name."""
    path, inputs = package(name), []
    for index, (key, values) in enumerate(feeds.items()):
        about: dict = {"name": key, "type": str(values.dtype), "shape": list(values.shape)}
        if values.dtype == object:
            about |= {"type": "string", "text": values.tolist()}
        else:
            values.tofile(folder / f"{index}.bin")
            about["file"] = f"{index}.bin"
        inputs.append(about)
    (folder / "inputs.json").write_text(json.dumps(inputs))
    command = ["node", str(RUNNER), path, str(model), str(folder), "1000"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    kinds = {"p_value": np.float64, "alarm": np.bool_, "anomaly_score": np.float64}
    return {key: np.fromfile(folder / f"{key}.bin", dtype=kind) for key, kind in kinds.items()}
