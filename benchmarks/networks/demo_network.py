"""Train the small network of the demo on Fashion-MNIST; seed 0 comes with the package.

    export PUSHFORWARD_DATA=DATA
    python -m benchmarks.networks.demo_network                    # trains seed 0, in parts that resume, and states its accuracy
    python -m benchmarks.networks.demo_network --ship             # and writes its weights into the package
    python -m benchmarks.networks.demo_network --divisions 8      # guards of the network that ships, by divisions of its unseen images

The recipe is the plain one: Adam with one cycle, no augmentation, no regularization, a fixed number of epochs. Nothing was chosen on
digits or on test images. The first 2,000 training images are left out, so that they can calibrate a guard.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

import pushforward as pf
from benchmarks.common.datasets import load_images, load_labels
from benchmarks.networks.tasks import as_input
from pushforward.data import load_clothes_network, load_image_labels, load_image_sample, samples
from pushforward.data.samples.network import UNSEEN, ClothesNetwork

__all__ = ["EPOCHS", "clothes", "divisions", "train"]

EPOCHS, _BATCH = 8, 128


def clothes(train: bool) -> tuple[Tensor, Tensor]:
    """All training or test images as network inputs, with their labels."""
    return as_input(load_images("fashion-mnist", train=train)), load_labels("fashion-mnist", train=train)


def train(seed: int, folder: Path, rows: tuple[Tensor, Tensor] | None = None, epochs: int = EPOCHS) -> nn.Module:
    """The trained network of a seed, in evaluation mode; a checkpoint after every epoch lets a stopped run resume.

    Args:
        seed: of the weights and of the order of the images.
        folder: of the checkpoints.
        rows: inputs and labels; by default the training images that the network of the demo sees.
        epochs: of training.
    """
    file = folder / f"demo-{seed}.pt"
    state: dict[str, Any] = torch.load(file, weights_only=True) if file.exists() else {"epoch": 0}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = ClothesNetwork()
    if state["epoch"]:
        net.load_state_dict(state["net"])
    if state["epoch"] >= epochs:
        return net.eval()
    x, y = rows if rows is not None else tuple(part[UNSEEN:] for part in clothes(True))
    optimizer = torch.optim.Adam(net.parameters())
    steps = len(x) // _BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, epochs * steps, pct_start=0.2)
    if state["epoch"]:
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
    folder.mkdir(parents=True, exist_ok=True)
    for epoch in range(state["epoch"], epochs):
        start, total = time.monotonic(), 0.0
        generator = torch.Generator().manual_seed(seed * 1000 + epoch)
        for index in torch.randperm(len(x), generator=generator)[: steps * _BATCH].split(_BATCH):
            loss = F.cross_entropy(net(x[index]), y[index])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        state = {"epoch": epoch + 1, "net": net.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}  # fmt: skip
        torch.save(state, file.with_suffix(".tmp"))
        file.with_suffix(".tmp").rename(file)
        print(f"seed {seed} epoch {epoch + 1}/{epochs} loss {total / steps:.4f} {time.monotonic() - start:.0f} s", flush=True)  # fmt: skip
    return net.eval()


def share_correct(net: nn.Module, x: Tensor, y: Tensor) -> float:
    """Fraction of rows that are classified correctly."""
    with torch.no_grad():
        return float(torch.cat([net(part).argmax(1) for part in x.split(1000)]).eq(y).float().mean())


def divisions(count: int) -> None:
    """Print the alarms of the demo's guard at 5 %, by the seed that divides its unseen images: clothes and digits that ship, all test clothes."""
    parts = (("fashion-mnist", "train"), ("fashion-mnist", "test"), ("mnist", "test"))
    known, new, digits = (torch.from_numpy(load_image_sample(*part))[:, None] / 255 for part in parts)
    labels = torch.from_numpy(load_image_labels("fashion-mnist", "train")).long()
    for seed in range(count):
        guard = pf.NetworkGuard(load_clothes_network(), 0.05, seed=seed)
        guard.fit((known[UNSEEN:], labels[UNSEEN:]), calibration=known[:UNSEEN])
        rates = [float((guard.p_value(x) <= guard.levels_[None]).mean()) for x in (new, digits, clothes(False)[0])]
        print(
            f"seed {seed}: clothes {rates[0]:.1%}, digits {rates[1]:.1%}, all test clothes {rates[2]:.1%}", flush=True
        )


def main() -> None:
    """Train one seed, and print its accuracy."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.networks.demo_network")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights", type=Path, default=Path("runs/networks"))
    parser.add_argument("--ship", action="store_true", help="write the weights into the package")
    parser.add_argument("--divisions", type=int, help="train nothing; print the alarms of guards for this many seeds")
    arguments = parser.parse_args()
    if arguments.divisions:
        divisions(arguments.divisions)
        return
    net = train(arguments.seed, arguments.weights)
    (x, y), (test, test_y) = clothes(True), clothes(False)
    print(f"accuracy on images of training {share_correct(net, x[UNSEEN:], y[UNSEEN:]):.4f}, "
          f"on the {UNSEEN:,} left out {share_correct(net, x[:UNSEEN], y[:UNSEEN]):.4f}, on test images {share_correct(net, test, test_y):.4f}")  # fmt: skip
    if arguments.ship:
        file = Path(samples.__file__).parent / "clothes-network.safetensors"
        save_file(net.state_dict(), file)
        print(f"{file}: {file.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
