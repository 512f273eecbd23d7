"""Kills real training processes with SIGKILL and compares how they end: `python killing.py FOLDER SEED KIND ...`.

This process only imports, and forks a child for each run, so that a run does not start Python. It prints JSON: for each
kind of data the hash of an undisturbed run's weights and history, that of the killed and resumed run, and the steps at
which runs were killed.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch._dynamo  # the first optimizer imports it: once here instead of in every child
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import pushforward as pf
from pushforward import io

STEPS = 80


class Augmented(Dataset):
    """Items with noise from every global generator."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Tensor:
        return self.x[index] + 0.1 * (random.random() + np.random.random() + torch.rand(()).item())  # noqa: NPY002


def data(kind: str) -> tuple[object, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(150, 3, generator=generator)
    x[:, 1] = 0.3 * x[:, 1] + x[:, 0] ** 2
    if kind == "array":  # the last column counts: its noise is drawn again in each step
        x[:, 2] = torch.floor(3 * x[:, 2])
    train, held = x[:110], x[110:]
    if kind == "array":
        return train, held
    return (Augmented(train) if kind == "dataset" else DataLoader(Augmented(train), batch_size=32, shuffle=True)), held


def model(kind: str) -> pf.models.Model:
    torch.manual_seed(0)
    if kind == "array":
        inner = pf.models.NSF(features=3, layers=2, hidden=(16, 16), dropout=0.2)
        transforms = pf.transforms.Chain(pf.transforms.LatticeDequantize(3, columns=(2,)), inner.chain)
        return pf.models.Flow(transforms, inner.base)
    return pf.models.MAF(features=3, layers=2, hidden=(16,), batch_norm=True, dropout=0.2)


def train(kind: str, folder: Path, death: str) -> None:
    """Run or resume, and write the hash of the results to ``folder``."""
    counts = {"replace": 0, "fsync": 0}

    def counting(name, call):
        def counted(*args):
            counts[name] += 1
            if death == f"{name} {counts[name]}":
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args)

        return counted

    os.replace, os.fsync = counting("replace", os.replace), counting("fsync", os.fsync)
    trained = model(kind)
    rows, held = data(kind)
    result = pf.fit(
        trained, rows, validation=held, batch_size=32, max_steps=STEPS, evaluate_every=4, learning_rate=8e-2, ema=0.5, patience=6, seed=5,
        checkpoint=folder / "run.safetensors", checkpoint_every=1, log=folder / "metrics.jsonl", progress="silent",
    )  # fmt: skip
    digest = hashlib.sha256()
    for value in trained.state_dict().values():
        digest.update(value.contiguous().numpy().tobytes())
    history = [{key: value for key, value in event.items() if key != "seconds"} for event in result.history]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    summary = {
        "weights": digest.hexdigest(),
        "history": history,
        "logged": [line["step"] for line in lines],
        "stopped": result.stopped,
        "steps": result.steps,
        "best_step": result.best_step,
    }
    (folder / "summary.json").write_text(json.dumps(summary))


def child(kind: str, folder: Path, *, death: str = "", after: float | None = None) -> bool:
    """One process, killed at the named call, or some seconds after its first checkpoint; whether it ended on its own.

    From the first checkpoint on, and not from the start, which may take longer than all steps: each process gets on.
    """
    folder.mkdir(exist_ok=True)
    file = folder / "run.safetensors"
    before = file.stat().st_mtime_ns if file.exists() else None
    number = os.fork()
    if number == 0:
        status = 1
        try:
            train(kind, folder, death)
            status = 0
        finally:
            os._exit(status)
    if after is not None:
        patience = time.monotonic() + 60
        while (file.stat().st_mtime_ns if file.exists() else None) == before and time.monotonic() < patience:
            time.sleep(0.001)
        time.sleep(after)
        os.kill(number, signal.SIGKILL)
    _, status = os.waitpid(number, 0)
    if os.WIFSIGNALED(status):
        return False
    if status != 0:
        raise SystemExit(f"a child ended with status {status}")
    return True


def compare(folder: Path, kind: str, seed: int) -> dict[str, object]:
    """Compare an undisturbed run with one that is killed several times."""
    folder.mkdir()
    began = time.monotonic()
    assert child(kind, folder / "whole")
    duration = time.monotonic() - began
    chance, died = random.Random(seed), []

    def step() -> int:
        path = folder / "killed" / "run.safetensors"
        return io.read(path, "checkpoint")[0]["state"]["position"][0] if path.exists() else -1

    # First while a file is written: before the first file has its name, then before a later one has it (the data are on
    # the disk, or not yet), then at random moments.
    for death in ("replace 1", "replace 5", "fsync 13"):
        assert not child(kind, folder / "killed", death=death)
        died.append(step())
    for _ in range(12):
        if child(kind, folder / "killed", after=chance.uniform(0.0, 0.1) * duration):
            break
        died.append(step())
        if sum(-1 < number < STEPS for number in died[3:]) >= 5:
            break
    assert child(kind, folder / "killed")
    whole, killed = (json.loads((folder / name / "summary.json").read_text()) for name in ("whole", "killed"))
    left = sorted(path.name for path in (folder / "killed").iterdir() if not path.name.startswith("."))
    return {"whole": whole, "killed": killed, "died": died, "left": left}


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps({kind: compare(Path(sys.argv[1]) / kind, kind, int(sys.argv[2])) for kind in sys.argv[3:]}))
