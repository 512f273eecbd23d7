"""Training of the networks, in parts that resume: a checkpoint after every epoch."""

from __future__ import annotations

import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.networks.architectures import build
from benchmarks.networks.tasks import TASKS, Rows, load_task

__all__ = ["accuracy", "load_network", "train"]


def weights(folder: Path, name: str, seed: int) -> Path:
    """The file of a network's weights."""
    return folder / f"{name}-{seed}.pt"


def train(name: str, seed: int, folder: Path, minutes: float) -> bool:
    """Train a network for at most this long; whether it is finished."""
    end, task, file = time.monotonic() + 60 * minutes, TASKS[name], weights(folder, name, seed)
    state = torch.load(file, weights_only=True) if file.exists() else {"epoch": 0}
    if state["epoch"] >= task.epochs:
        return True
    rows = load_task(task, seed)
    x, y = rows.train
    net = build(task.kind, tuple(x.shape[1:]), rows.classes, seed)
    net = net.to(memory_format=torch.channels_last) if x.dim() == 4 else net  # pyright: ignore
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=5e-2)
    batch = 128 if len(x) >= 5000 else 64
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, task.epochs * (len(x) // batch), pct_start=0.2)
    if state["epoch"]:
        net.load_state_dict(state["net"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
    folder.mkdir(parents=True, exist_ok=True)
    for epoch in range(state["epoch"], task.epochs):
        generator = torch.Generator().manual_seed(seed * 1000 + epoch)
        torch.manual_seed(seed * 1000 + epoch)
        start, losses = time.monotonic(), []
        for index in torch.randperm(len(x), generator=generator)[: len(x) // batch * batch].split(batch):
            inputs = augment(x[index], task.augment, generator)
            with torch.autocast("cpu", torch.bfloat16, enabled=x.dim() == 4):
                loss = F.cross_entropy(net.train()(inputs).float(), y[index])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
        state = {
            "epoch": epoch + 1, "net": net.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict(),
            "seconds": state.get("seconds", 0.0) + time.monotonic() - start,
        }  # fmt: skip
        if epoch + 1 == task.epochs:
            state["accuracy"] = accuracy(net, rows)
        torch.save(state, file.with_suffix(".tmp"))
        file.with_suffix(".tmp").rename(file)
        print(f"{name} seed {seed} epoch {epoch + 1}/{task.epochs} loss {sum(losses) / len(losses):.4f} "
              f"{time.monotonic() - start:.0f} s {state.get('accuracy', '')}", flush=True)  # fmt: skip
        if time.monotonic() > end:
            return epoch + 1 >= task.epochs
    return True


def augment(x: Tensor, how: str, generator: torch.Generator) -> Tensor:
    """Shift every image by up to 3 pixels, and mirror half of them."""
    if not how:
        return x
    n, _, height, width = x.shape
    padded = F.pad(x, (3, 3, 3, 3))
    down, right = torch.randint(0, 7, (2, n, 1, 1), generator=generator)
    rows = (torch.arange(height)[None, :, None] + down).expand(n, height, width)
    columns = torch.arange(width)[None, None, :].expand(n, height, width)
    if "mirror" in how:
        flip = torch.rand(n, 1, 1, generator=generator) < 0.5
        columns = torch.where(flip, width - 1 - columns, columns)
    columns = columns + right
    return padded[torch.arange(n)[:, None, None], :, rows, columns].permute(0, 3, 1, 2).contiguous()


def accuracy(net: nn.Module, rows: Rows) -> float:
    """Fraction of test rows that are classified correctly."""
    net.eval()
    with torch.no_grad():
        right = [
            (net(x).argmax(1) == y).float()
            for x, y in zip(rows.test[0].split(500), rows.test[1].split(500), strict=True)
        ]
    return round(float(torch.cat(right).mean()), 4)


def load_network(name: str, seed: int, folder: Path) -> tuple[nn.Module, Rows, float]:
    """A trained network in evaluation mode, its rows and its test accuracy."""
    rows = load_task(TASKS[name], seed)
    state = torch.load(weights(folder, name, seed), weights_only=True)
    net = build(TASKS[name].kind, tuple(rows.train[0].shape[1:]), rows.classes, seed)
    net.load_state_dict(state["net"])
    return net.eval(), rows, state.get("accuracy") or accuracy(net, rows)
