"""Runs of one process and of two, which ``test_distributed`` compares. ``python sharing.py FOLDER CASE ...`` prints what both found.

The second process is forked, so that torch is imported once.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

import pushforward as pf
from pushforward.models.base import Model
from pushforward.training.seeds import seed_step

FOLDER = Path(sys.argv[1])


def rows(count: int, seed: int = 0) -> torch.Tensor:
    x = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x[:, 1] = 0.3 * x[:, 1] + x[:, 0] ** 2
    return x


def nice() -> Model:
    """In float64, where rounding does not grow to something that one could see."""
    seed_step(0, torch.device("cpu"))
    return pf.models.NICE(features=3, hidden=(8,)).double()


def weights(model: Model) -> list[float]:
    return torch.cat([value.double().flatten() for value in model.state_dict().values()]).tolist()


def fitted(data: Any, model: Model | None = None, **options: Any) -> dict[str, Any]:
    model = nice() if model is None else model
    given = {"max_steps": 30, "batch_size": 33, "evaluate_every": 10, "progress": "silent"} | options
    result = pf.fit(model, data, **given)
    history = [[event["step"], event["loss"], event["validation"]] for event in result.history]
    return {"weights": weights(model), "history": history, "steps": result.steps, "stopped": result.stopped}


def both_ways(make: Callable[[bool], dict[str, Any]]) -> dict[str, Any]:
    """What one process finds, and each of two."""
    return {"one": make(False), "two": processes(lambda rank: make(True))}


def processes(work: Callable[[int], Any]) -> list[Any]:
    """What each of two processes finds."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    found = FOLDER / "of-the-second-process.json"
    child = os.fork()
    os.environ["RANK"] = "0" if child else "1"
    signal.alarm(60)  # ends a process that waits for one that has failed
    if child:
        own = work(0)
        torch.distributed.destroy_process_group()
        signal.alarm(0)
        _, status = os.waitpid(child, 0)
        assert status == 0
        for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            del os.environ[name]
        return [own, json.loads(found.read_text())]
    try:
        found.write_text(json.dumps(work(1)))
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


class Items(Dataset):
    """Rows of a map-style data set."""

    def __len__(self) -> int:
        return 200

    def __getitem__(self, index: int) -> torch.Tensor:
        return rows(200)[index]


class Interrupting(Items):
    """Its second process gets a SIGINT while it reads the batch of a step."""

    def __init__(self, step: int) -> None:
        self.step, self.reads = step, 0

    def __getitems__(self, indices: list[int]) -> list[torch.Tensor]:
        self.reads += 1
        if self.reads == self.step and os.environ.get("RANK") == "1":
            os.kill(os.getpid(), signal.SIGINT)
        return list(rows(200)[indices])


def interrupted(rank: int) -> list[str]:
    path = FOLDER / "interrupted.safetensors"
    said = []
    for step in (12, 0):
        try:
            result = fitted(Interrupting(step), validation=None, checkpoint=path, distributed=True)
            said.append(result["weights"])
        except KeyboardInterrupt as error:
            said.append(str(error).replace(str(path), "FILE"))
    return said


def resumed(rank: int) -> dict[str, Any]:
    """A run that its callback stops, and the same call again."""
    path = FOLDER / "resumed.safetensors"

    def stop(event: Any) -> bool:
        assert rank == 0  # only the first process calls it
        return event.step == 20

    first = fitted(rows(200), checkpoint=path, callback=stop, distributed=True)
    again = fitted(rows(200), checkpoint=path, distributed=True)
    return {"first": first, "again": again}


def dequantized(distributed: bool) -> dict[str, Any]:
    """A loss with noise: each process has its own."""
    seed_step(0, torch.device("cpu"))
    integers = (rows(200).abs() * 3).floor().clamp(max=7).long()
    chain = pf.transforms.Chain(pf.transforms.UniformDequantize(3), pf.transforms.ActNorm(3))
    return fitted(integers, pf.models.Flow(chain, pf.distributions.Normal(3)), distributed=distributed)


def main() -> None:
    torch.set_num_threads(1)
    loader = DataLoader(TensorDataset(rows(200)), batch_size=25, shuffle=True, generator=torch.Generator())
    held_out = rows(90, seed=1)
    weighted = {"weights": torch.linspace(0, 2, 200)}
    cases: dict[str, Callable[[], Any]] = {
        "array": lambda: both_ways(lambda d: fitted(rows(200), distributed=d)),
        "weights": lambda: both_ways(lambda d: fitted(rows(200), **weighted, distributed=d)),
        "microbatches": lambda: both_ways(lambda d: fitted(rows(200), microbatches=3, distributed=d)),
        "dataset": lambda: both_ways(lambda d: fitted(Items(), validation=held_out, distributed=d)),
        "loader": lambda: both_ways(lambda d: fitted(loader, validation=held_out, distributed=d)),
        "no held-out rows": lambda: both_ways(lambda d: fitted(rows(200), validation=None, distributed=d)),
        "resumed": lambda: processes(resumed),
        "interrupted": lambda: processes(interrupted),
        "noise": lambda: processes(lambda rank: dequantized(True)),
        "time": lambda: processes(lambda rank: fitted(rows(200), max_steps=None, max_time=0.5, distributed=True)),
    }
    found = {name: cases[name]() for name in sys.argv[2:]}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
