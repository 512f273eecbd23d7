"""The sets that a network is tested on: near and far, and for development only what is made of its own inputs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.common.datasets import load_images
from benchmarks.networks.tasks import Rows, Task, as_input

__all__ = ["development_sets", "test_sets"]

LARGEST = 1000
"""Most rows of a set."""


def test_sets(task: Task, rows: Rows) -> dict[str, tuple[str, Tensor]]:
    """Other sets by name: "near" or "far", and their rows in the form of the network's inputs."""
    found: dict[str, tuple[str, Tensor]] = {}
    if len(rows.left_out):
        found["left-out classes"] = ("near", rows.left_out)
    test = rows.test[0]
    if task.data == "digits":
        generator = torch.Generator().manual_seed(0)
        found["mirrored digits"] = ("near", test.reshape(-1, 8, 8).flip(2).flatten(1))
        found["shuffled columns"] = ("far", test[:, torch.randperm(64, generator=generator)])
        found["noise"] = ("far", torch.rand(test.shape, generator=generator))
        return {name: (side, x[:LARGEST]) for name, (side, x) in found.items()}
    near, far = {
        "mnist": (["emnist-letters", "notmnist"], ["fashion-mnist", "pneumonia"]),
        "fashion-mnist": ([], ["mnist", "notmnist", "emnist-letters", "pneumonia"]),
        "cifar10": (["cifar100"], ["gtsrb", "mnist", "fashion-mnist", "notmnist", "emnist-letters", "pneumonia"]),
        "gtsrb": ([], ["cifar10", "cifar100", "mnist", "fashion-mnist", "notmnist", "pneumonia"]),
    }[task.data]
    if task.data == "fashion-mnist":
        found["upside down"] = ("near", test.flip(2))
    for side, names in (("near", near), ("far", far)):
        for name in names:
            found[name] = (side, _fitted(as_input(load_images(name, train=False)[:LARGEST]), test))
    found["noise"] = ("far", torch.rand(LARGEST, *test.shape[1:], generator=torch.Generator().manual_seed(0)))
    return {name: (side, x[:LARGEST]) for name, (side, x) in found.items()}


def _fitted(x: Tensor, like: Tensor) -> Tensor:
    """Images of the network's size and number of channels."""
    if x.shape[2:] != like.shape[2:]:
        x = F.interpolate(x, like.shape[2:], mode="bilinear", antialias=True)
    if x.shape[1] != like.shape[1]:
        x = x.expand(-1, 3, -1, -1) if like.shape[1] == 3 else x.mean(1, keepdim=True)
    return x.contiguous()


def development_sets(rows: Rows) -> dict[str, tuple[str, Tensor]]:
    """What the default was chosen on: left-out classes, and corruptions and mixtures of the network's own held-out rows."""
    x = rows.test[0][:LARGEST]
    generator = torch.Generator().manual_seed(1)
    other = x[torch.randperm(len(x), generator=generator)]
    noise = torch.randn(x.shape, generator=generator)
    found = {"left-out classes": ("near", rows.left_out[:LARGEST]), "mixtures": ("near", (x + other) / 2)}
    found["strong noise"] = ("far", (x + 0.5 * noise).clamp(0, 1) if x.dim() == 4 else x + 0.5 * noise)
    if x.dim() == 4:
        half = x.shape[3] // 2
        found["halves of two"] = ("near", torch.cat((x[..., :half], other[..., half:]), 3))
        found["blur"] = ("far", F.avg_pool2d(F.pad(x, (4, 4, 4, 4), mode="reflect"), 9, 1))
        found["inverted"] = ("far", 1 - x)
        blocks = x.unfold(2, half, half).unfold(3, half, half)
        order = [3, 0, 1, 2]
        pieces = [blocks[:, :, i // 2, i % 2] for i in order]
        found["shuffled quarters"] = ("far", torch.cat((torch.cat(pieces[:2], 3), torch.cat(pieces[2:], 3)), 2))
        found["low contrast"] = ("far", 0.5 + 0.2 * (x - 0.5))
    else:
        found["shuffled columns"] = ("far", x[:, torch.randperm(x.shape[1], generator=generator)])
        found["inverted"] = ("far", 1 - x)
    return found
