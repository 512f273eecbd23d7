"""How the network of transformations enters the score of images: the designs that were compared, on development sets.

    python -m benchmarks.quality.transformations --data DATA --out F            # runs missing cases
    python -m benchmarks.quality.transformations --data DATA --out F --table    # only prints the tables

The network learns from 20,000 training images, the flow and the distances from 4,000 of them, the density of statistics from 2,000 others;
1,000 more are the normal images that are scored. The other images are those normal images, turned, and training images of other sets; of letters,
which have a test part only, images that the card does not use. So no image of the card of ``benchmarks.quality.ood`` is read. Short
trainings: 150 steps of the flow and 400 of the network, so that a set takes half a minute. "caught" is the share of other images above the 99th (95th) percentile of
the normal ones.

- *pixels*: -log of the density of the statistics of pixels, the guard's score before there was a network;
- *symmetries*: a network that knows symmetries only; *network*: with shifted instances;
- *column*: the density of the statistics and of the logarithm of the network's score together;
- *sum of w*: the surprise of the pixels and w times that of the network, which has shifted instances.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.common.datasets import load_images
from benchmarks.common.results import Results, footer, markdown
from benchmarks.quality.data import add_data_option
from benchmarks.quality.ood import turned_images
from pushforward.detection import auroc
from pushforward.detection.batching import by_batches
from pushforward.detection.image_score import IMAGE_TRAINING, fit_image_score
from pushforward.detection.scores import DoSE, Log, Score, Statistic, SurpriseSum
from pushforward.detection.transformation_training import fit_transformations

STEPS, NETWORK_STEPS = 150, 400
WEIGHTS = (1.0, 2.0, 3.0)


def development_sets(name: str, folder: Path | None, normal: Tensor) -> dict[str, Tensor]:
    """Other images of which the card reads none."""
    letters = load_images("emnist-letters", train=False, folder=folder)
    order = torch.randperm(len(letters), generator=torch.Generator().manual_seed(1))  # the card uses the first 2,000
    clothes_or_digits = "mnist" if name == "fashion-mnist" else "fashion-mnist"
    kept = ("turned by 45", "turned by 90", "left and right mirrored", "upside down")
    return {key: images for key, images in turned_images(normal).items() if key in kept} | {
        clothes_or_digits: load_images(clothes_or_digits, train=True, folder=folder)[:500],
        "emnist-letters": letters[order[2000:2500]],
        "usps": load_images("usps", train=True, folder=folder)[:500],
    }


class Columns(Statistic):
    """The first ``count`` columns of a row; of columns that were computed before."""

    needs = frozenset()

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"column {k}" for k in range(self.count))

    def _values(self, x: Tensor) -> Tensor:
        return x[:, : self.count]


class Last(Score):
    """The last column of a row."""

    needs = frozenset()

    def _score(self, x: Tensor) -> Tensor:
        return x[:, -1]


def columns(train: Tensor, sets: dict[str, Tensor], seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Statistics of pixels and the network's score as the last column; and the score of the network of symmetries alone."""
    config = replace(IMAGE_TRAINING, max_steps=STEPS, progress="silent", seed=seed)
    total = fit_image_score(train[:4000], sets["held out"][:500], config=config).inner
    assert isinstance(total, SurpriseSum)
    pixels = total.scores[0]
    assert isinstance(pixels, DoSE)
    network = fit_transformations(train, steps=NETWORK_STEPS, seed=seed)
    plain = fit_transformations(train, steps=NETWORK_STEPS, seed=seed, shifts=())
    found = {name: torch.cat((by_batches(pixels.columns, x, 256), network(x)[:, None]), 1) for name, x in sets.items()}
    return found, {name: plain(x) for name, x in sets.items()}


def designs(held_out: Tensor, seed: int) -> dict[str, Score]:
    """The scores of rows of columns that are compared, fitted."""
    count = held_out.shape[1] - 1
    options: dict[str, Any] = {"density": "gmm", "components": 16, "seed": seed}
    pixels = DoSE(Columns(count), **options).fit(held_out)
    found: dict[str, Score] = {
        "pixels": pixels,
        "network": Last().fit(held_out),
        "column": DoSE(Columns(count), Log(Last()), **options).fit(held_out),
    }
    sums = {f"sum of {w:g}": SurpriseSum(pixels, Last(), weights=(1.0, w)).fit(held_out) for w in WEIGHTS}
    return found | sums


def run(options: argparse.Namespace, results: Results) -> None:
    for name in options.sets:
        key = {"train": name, "seed": options.seed}
        if results.where(**key):
            continue
        images = load_images(name, train=True, folder=options.data)
        images = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(99 + options.seed))]
        normal = images[22_000:23_000]
        sets = {"held out": images[20_000:22_000], "normal": normal}
        sets |= development_sets(name, options.data, normal[:500])
        found, plain = columns(images[:20_000], sets, options.seed)
        scored = {
            label: {s: score(x) for s, x in found.items()}
            for label, score in designs(found["held out"], options.seed).items()
        }
        readings = []
        for label, values in {"symmetries": plain, **scored}.items():
            fine = values.pop("normal").numpy()
            values.pop("held out")
            for other, odd in ((other, rows.numpy()) for other, rows in values.items()):
                caught = {f"caught {p}%": float((odd > np.quantile(fine, 1 - p / 100)).mean()) for p in (1, 5)}
                readings.append({**key, "score": label, "other": other, "auroc": auroc(fine, odd), **caught})
        for reading in readings:  # all at once, so that a stopped run leaves no incomplete set
            results.add(reading)


def tables(results: Results) -> str:
    parts = []
    for name in dict.fromkeys(record["train"] for record in results.records):
        records = results.where(train=name)
        scores = list(dict.fromkeys(record["score"] for record in records))
        others = list(dict.fromkeys(record["other"] for record in records))
        found = {(r["score"], r["other"]): f"{100 * r['auroc']:.1f} ({100 * r['caught 1%']:.0f})" for r in records}
        parts.append(f"Trained on {name}: AUROC (caught at 1 %), percent\n")
        parts.append(markdown(["other", *scores], [[o, *(found[s, o] for s in scores)] for o in others]))
    return "\n".join([*parts, footer("python -m benchmarks.quality.transformations", results.records)])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Designs of the network of transformations, on development sets.")
    add_data_option(parser)
    parser.add_argument("--sets", nargs="+", default=["fashion-mnist", "mnist"], choices=["fashion-mnist", "mnist"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/quality-transformations.jsonl"))
    parser.add_argument("--table", action="store_true", help="print the tables of existing results and run nothing")
    options: Any = parser.parse_args(arguments)
    torch.set_num_threads(1)
    results = Results(options.out)
    if not options.table:
        run(options, results)
    print(tables(results))


if __name__ == "__main__":
    main()
