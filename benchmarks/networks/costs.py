"""What a guard adds to a network: CPU milliseconds for a batch of 64, and MiB."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import pushforward as pf
from benchmarks.common.results import Results, markdown
from benchmarks.networks.columns import CANDIDATES
from benchmarks.networks.training import load_network

__all__ = ["cost_table", "costs", "costs_of_photographs", "costs_of_scores", "score_cost_table"]

BATCH = 64
LARGE = {"resnet18": "ResNet-18, 224 x 224"}


def costs(name: str, seed: int, folder: Path, results: Results) -> None:
    """Add what the default adds to a network of the card, unless it was measured."""
    if results.where(network=name, seed=seed, batch=BATCH):
        return
    net, rows, _ = load_network(name, seed, folder)
    train = (rows.train[0][:3000], rows.train[1][:3000])
    record = _added(net, train, rows.calibration[0][:300], rows.test[0][:BATCH], turns=100)
    results.add({"network": name, "seed": seed, "batch": BATCH, **record})


def costs_of_photographs(results: Results) -> None:
    """Add what the default adds to ResNet-18 (torchvision) for photographs of 224 x 224, with random weights and noise as images."""
    from torchvision.models import resnet18

    if results.where(network="resnet18", batch=BATCH):
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net, x = resnet18().eval(), torch.randn(192 + BATCH, 3, 224, 224)
        y = torch.randint(0, 10, (128,))
    record = _added(net, (x[:128], y), x[128:192], x[-BATCH:], turns=10)
    results.add({"network": "resnet18", "seed": 0, "batch": BATCH, **record})


def costs_of_scores(name: str, seed: int, folder: Path, results: Results) -> None:
    """Add what each single score adds to a network of the card, unless it was measured."""
    net, rows, _ = load_network(name, seed, folder)
    train = (rows.train[0][:3000], rows.train[1][:3000])
    for label, make in CANDIDATES.items():
        if not results.where(network=name, seed=seed, alone=label):
            record = _added(net, train, rows.calibration[0][:300], rows.test[0][:BATCH], turns=40, score=make())
            results.add({"network": name, "seed": seed, "alone": label, **record})


def _added(
    net: nn.Module, train: tuple[Tensor, Tensor], held_out: Tensor, batch: Tensor, turns: int, score: Any = "default"
) -> dict[str, Any]:
    """Calls of the network and of the guard alternate; their medians are compared, after a tenth as many turns that do not count."""
    guard = pf.NetworkGuard(net, 0.05, score=score).fit(train, calibration=held_out)
    found: dict[str, list[float]] = {"bare": [], "guarded": []}
    calls: dict[str, Callable[[], Any]] = {"bare": lambda: net(batch), "guarded": lambda: guard(batch)}
    first = turns // 10
    with torch.no_grad():
        for turn in range(turns + first):
            for key, call in calls.items():
                start = time.thread_time()
                call()
                if turn >= first:
                    found[key].append(1e3 * (time.thread_time() - start))
    bare, whole = (float(np.median(found[key])) for key in calls)
    spread = float(np.std(found["bare"]))
    size = sum(tensor.numel() * tensor.element_size() for tensor in guard.score_.buffers()) / 2**20
    return {"network ms": bare, "added ms": whole - bare, "network spread ms": spread, "MiB": size}


def cost_table(results: Results, networks: dict[str, str]) -> str:
    """What the guard adds to a network."""
    rows = []
    for network, name in (networks | LARGE).items():
        own = results.where(network=network, batch=BATCH)
        if own:
            net, added, size = (float(np.median([r[key] for r in own])) for key in ("network ms", "added ms", "MiB"))
            spread = float(np.median([r.get("network spread ms", 0.0) for r in own]))
            shown = f"{added:.2f}" if added > spread else f"below {spread:.1f}, the spread of the network"
            rows.append([name, f"{net:.2f}", shown, f"{max(1.0, 0.1 * net):.2f}", f"{size:.1f}"])
    head = ["network", "network, ms", "added, ms", "goal, ms", "MiB"]
    return markdown(head, rows, ["---", *["---:"] * 4]) if rows else ""


def score_cost_table(results: Results, networks: dict[str, str], named: Callable[[str], str]) -> str:
    """What each score alone adds to each network: milliseconds / MiB."""
    found = {(r["alone"], r["network"]): r for r in results.records if "alone" in r}
    labels = [label for label in CANDIDATES if all((label, network) in found for network in networks)]
    rows = []
    for label in sorted(labels, key=lambda label: sum(found[label, network]["added ms"] for network in networks)):
        own = [found[label, network] for network in networks]
        rows.append([named(label), *(f"{r['added ms']:.1f} / {r['MiB']:.1f}" for r in own)])
    return (
        markdown(["score alone, ms / MiB", *networks.values()], rows, ["---", *["---:"] * len(networks)])
        if rows
        else ""
    )
