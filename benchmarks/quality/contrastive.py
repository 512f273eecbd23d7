"""CSI beside the network of transformations, with equal time, on development sets.

    python -m benchmarks.quality.contrastive --data DATA --out F            # runs missing cases
    python -m benchmarks.quality.contrastive --data DATA --out F --table    # only prints the tables

CSI (Tack et al. 2020, arXiv 2007.08176) trains an encoder on the normal images alone: two random views of an image and of its quarter turns
have near codes, and all other pairs, also an image and its own turns, far ones (eq. 1 and 3); a linear layer says how an image was turned (eq. 4). Its
score of an image sums, over the turns, the largest cosine similarity to a training image times the length of the code, and
the logit of the right turn, each divided by its mean over training images (eq. 5 to 8). Here each view is moved by up to two pixels, scaled by
0.85 to 1.15, and changed in contrast and brightness. The encoder has the convolutions of the network of transformations, and as many CPU seconds.

The images are those of ``benchmarks.quality.transformations``: no image of the card of ``benchmarks.quality.ood`` is read. *network* is the
network of transformations, *con* and *cls* are the parts of CSI, *CSI* their sum, and *both* adds the surprises of CSI and of the network.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.common.datasets import load_images
from benchmarks.common.results import Results
from benchmarks.quality.data import add_data_option
from benchmarks.quality.transformations import NETWORK_STEPS, development_sets, tables
from pushforward.detection import auroc
from pushforward.detection.scores.surprise_sum import surprise, surprise_scale
from pushforward.detection.scores.transformation import scaled
from pushforward.detection.transformation_training import fit_transformations

BATCH, TURNS, CODE = 32, 4, 64
TEMPERATURE = 0.5
MEMORY = 2000
"""Training images among which the nearest one is searched."""


class Encoder(nn.Module):
    """Convolutions, then a code for the contrast and logits of the turns."""

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        widths = (channels, 32, 64, 128)
        layers = [
            part for a, b in itertools.pairwise(widths) for part in (nn.Conv2d(a, b, 3, stride=2, padding=1), nn.ReLU())
        ]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * ((side + 7) // 8) ** 2, 128), nn.ReLU())
        self.code = nn.Sequential(nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, CODE))
        self.turn = nn.Linear(128, TURNS)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Codes and logits."""
        found = self.body(x)
        return self.code(found), self.turn(found)


def view(x: Tensor, generator: torch.Generator) -> Tensor:
    """A random view of each image of values in [-1, 1]."""
    n = len(x)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, generator=generator)

    scale, zero = uniform(0.85, 1.15), torch.zeros(n)
    moves = [uniform(-4.0, 4.0) / x.shape[-1] for _ in range(2)]  # up to two pixels; the image is two units wide
    rows = torch.stack((torch.stack((scale, zero, moves[0]), 1), torch.stack((zero, scale, moves[1]), 1)), 1)
    moved = F.grid_sample(
        x, F.affine_grid(rows, list(x.shape), align_corners=False), padding_mode="border", align_corners=False
    )
    contrast, brightness = (uniform(*ends).reshape(-1, 1, 1, 1) for ends in ((0.8, 1.2), (-0.1, 0.1)))
    return (moved * contrast + brightness).clamp(-1.0, 1.0)


def turned(x: Tensor) -> Tensor:
    """All quarter turns, one after the other."""
    return torch.cat([x.rot90(k, (2, 3)) for k in range(TURNS)])


def train(images: Tensor, seconds: float, seed: int) -> Encoder:
    """Train for so many CPU seconds."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = Encoder(images.shape[1], images.shape[-1])
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-3)
    label = torch.arange(TURNS).repeat_interleave(BATCH).repeat(2)
    own = torch.eye(2 * TURNS * BATCH, dtype=torch.bool)
    partner = torch.arange(2 * TURNS * BATCH).roll(TURNS * BATCH)
    start = time.process_time()
    while (used := (time.process_time() - start) / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min((used + 0.01) / 0.1, 0.5 * (1 + np.cos(np.pi * used)))
        drawn = turned(scaled(images[torch.randint(len(images), (BATCH,), generator=generator)], torch.float32))
        codes, logits = network(torch.cat((view(drawn, generator), view(drawn, generator))))
        unit = F.normalize(codes, dim=1)
        similarity = (unit @ unit.T / TEMPERATURE).masked_fill(own, -torch.inf)
        loss = F.cross_entropy(similarity, partner) + F.cross_entropy(logits, label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


@torch.no_grad()
def parts(network: Encoder, memory: list[Tensor], x: Tensor) -> Tensor:
    """For each image and turn: similarity times length, and the logit; ``(n, TURNS, 2)``."""
    columns = []
    for k in range(TURNS):
        found = [network(part) for part in scaled(x, torch.float32).rot90(k, (2, 3)).split(500)]
        codes, logits = (torch.cat([pair[i] for pair in found]) for i in range(2))
        nearest = (F.normalize(codes, dim=1) @ memory[k].T).max(1).values
        columns.append(torch.stack((nearest * codes.norm(dim=1), logits[:, k]), 1))
    return torch.stack(columns, 1).double()


def run(options: argparse.Namespace, results: Results) -> None:
    """Both networks on a set, and the scores of all other images."""
    for name in options.sets:
        key = {"train": name, "seed": options.seed}
        if results.where(**key):
            continue
        images = load_images(name, train=True, folder=options.data)
        images = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(99 + options.seed))]
        normal = images[22_000:23_000]
        sets = {"held out": images[20_000:22_000], "normal": normal}
        sets |= development_sets(name, options.data, normal[:500])
        start = time.process_time()
        ours = fit_transformations(images[:20_000], steps=NETWORK_STEPS, seed=options.seed)
        seconds = time.process_time() - start
        network = train(images[:20_000], seconds, options.seed)
        with torch.no_grad():
            seen = scaled(images[:MEMORY], torch.float32)
            memory = [F.normalize(network(seen.rot90(k, (2, 3)))[0], dim=1) for k in range(TURNS)]
        scale = parts(network, memory, images[MEMORY : 2 * MEMORY]).mean(0)
        columns = {}
        for other, x in sets.items():
            con, cls = (-(parts(network, memory, x) / scale)[..., i].sum(1) for i in range(2))
            columns[other] = torch.stack((ours(x), con, cls, con + cls), 1)
        knots, levels, excess = surprise_scale(columns["held out"])
        scores: dict[str, dict[str, np.ndarray]] = {
            label: {other: values[:, k].numpy() for other, values in columns.items()}
            for k, label in enumerate(("network", "con", "cls", "CSI"))
        }
        scores["both"] = {
            other: sum(surprise(values[:, k], knots[k], levels, excess[k]) for k in (0, 3)).numpy()  # pyright: ignore
            for other, values in columns.items()
        }
        readings = []
        for label, values in scores.items():
            for other in list(sets)[2:]:
                fine, odd = values["normal"], values[other]
                caught = {f"caught {p}%": float((odd > np.quantile(fine, 1 - p / 100)).mean()) for p in (1, 5)}
                readings.append({**key, "score": label, "other": other, "auroc": auroc(fine, odd), **caught})
        for reading in readings:  # all at once, so that a stopped run leaves no incomplete set
            results.add(reading | {"cpu seconds": seconds})


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing, and print the table."""
    parser = argparse.ArgumentParser(description="CSI beside the network of transformations, on development sets.")
    add_data_option(parser)
    parser.add_argument("--sets", nargs="+", default=["fashion-mnist", "mnist"], choices=["fashion-mnist", "mnist"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/quality-contrastive.jsonl"))
    parser.add_argument("--table", action="store_true", help="print the tables of existing results and run nothing")
    options: Any = parser.parse_args(arguments)
    torch.set_num_threads(1)
    results = Results(options.out)
    if not options.table:
        run(options, results)
    print(tables(results).replace("benchmarks.quality.transformations`", "benchmarks.quality.contrastive`"))


if __name__ == "__main__":
    main()
