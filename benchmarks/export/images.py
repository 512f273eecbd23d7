"""What ``Guard(exportable=True)`` costs on images: AUROC with and without it, for the same flow, steps and seeds.

python -m benchmarks.export.images --data DIR --out images.jsonl
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch

import pushforward as pf
from benchmarks.common.results import Results, footer, markdown, spread
from pushforward.detection import auroc
from pushforward.io import read_images

FILES = {
    "mnist": ("mnist/train-images-idx3-ubyte.gz", "mnist/t10k-images-idx3-ubyte.gz"),
    "fashion-mnist": ("fashion-mnist/train-images-idx3-ubyte.gz", "fashion-mnist/t10k-images-idx3-ubyte.gz"),
    "notmnist": ("", "notmnist/t10k-images-idx3-ubyte.gz"),
}
TRAIN, TEST, STEPS = 2000, 500, 300


def measure(data: Path, out: Path, seeds: int) -> None:
    results = Results(out)
    for name in ("fashion-mnist", "mnist"):
        for seed in range(seeds):
            for exportable in (False, True):
                key = {"set": name, "seed": seed, "exportable": exportable}
                if results.where(**key):
                    continue
                guard = pf.Guard(0.05, exportable=exportable, max_steps=STEPS, random_state=seed)
                order = torch.randperm(10_000, generator=torch.Generator().manual_seed(seed))[:TRAIN]
                guard.fit(read_images(data / FILES[name][0])[order])
                usual = guard.anomaly_score(read_images(data / FILES[name][1])[:TEST])
                record: dict = {**key, "train": TRAIN, "steps": STEPS}
                for other in FILES:
                    if other != name:
                        unusual = guard.anomaly_score(read_images(data / FILES[other][1])[:TEST])
                        record[f"auroc {other}"] = auroc(usual, unusual)
                results.add(record)


SHOWN = {"fashion-mnist": "Fashion-MNIST", "mnist": "MNIST", "notmnist": "notMNIST"}


def table(file: Path) -> None:
    results, rows = Results(file), []
    for name in ("fashion-mnist", "mnist"):
        for other in (o for o in FILES if o != name):
            cells = [
                spread([r[f"auroc {other}"] for r in results.where(set=name, exportable=exportable)])
                for exportable in (False, True)
            ]
            rows.append((SHOWN[name], SHOWN[other], *cells))
    print(markdown(("normal", "anomalies", "Guard()", "Guard(exportable=True)"), rows, ("---", "---", "---:", "---:")))
    print(footer("python -m benchmarks.export.images", results.records))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("PUSHFORWARD_DATA", "data")))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--table", action="store_true", help="print the table of existing results and run nothing")
    arguments = parser.parse_args()
    if not arguments.table:
        torch.set_num_threads(1)
        measure(arguments.data, arguments.out, arguments.seeds)
    table(arguments.out)


if __name__ == "__main__":
    main()
