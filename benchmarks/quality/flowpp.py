"""Flow++ on Fashion-MNIST: stability of training at its default size compared with Glow, and the gain from its learned dequantization.

    python -m benchmarks.quality.flowpp --data DATA                    # trains missing models, then prints the tables
    python -m benchmarks.quality.flowpp --data DATA --table            # only prints the tables

"size": ``FlowPlusPlus`` and ``Glow`` with default sizes, on whole images, with the same number of steps on the same batches. The
largest rise is the rise of the mean training loss of ten steps above the lowest earlier mean. The two models differ in size and
cost, so equal steps are not equal time.

"dequantization": a small ``FlowPlusPlus`` on every third row and column (8 x 8), with uniform and with variational dequantization, from the
same seeds, with all else equal. Numbers are upper bounds on bits/dim, with one draw of the noise and with 16 (importance weighted).
"""

from __future__ import annotations

import argparse
import math
import os
import time
from pathlib import Path

import torch
from torch import Tensor

import pushforward as pf
from benchmarks.common.datasets import load_images
from benchmarks.common.results import Record, Results, footer, markdown
from benchmarks.quality.images import spread

SMALL = {"layers": (2, 1, 1), "components": 4, "hidden": (16,)}
DEQUANTIZATIONS = ("uniform", "variational")


def bits(model: pf.models.Model, images: Tensor, samples: int = 1) -> float:
    with torch.no_grad():
        parts = [model.evaluate(part, samples=samples).bits_per_dim().double() for part in images.split(50)]
    return torch.cat(parts).mean().item()


def train(
    model: pf.models.Model, rows: Tensor, steps: int, batch: int, seed: int, start: int
) -> tuple[list[float], float]:
    """Mean losses of ten steps each, in bits/dim, and CPU seconds of a step."""
    model.initialize(rows[:start])
    began = time.process_time()
    result = pf.fit(
        model, rows, validation=None, batch_size=batch, max_steps=steps, evaluate_every=10, seed=seed, initialize=False,
        progress="silent",
    )  # fmt: skip
    unit = math.prod(model.shape) * math.log(2)
    losses = [float(event["loss"]) / unit for event in result.history if event["loss"] is not None]
    return losses, (time.process_time() - began) / steps


def run(options: argparse.Namespace, results: Results) -> None:
    images = load_images("fashion-mnist", train=True, folder=options.data)
    test = load_images("fashion-mnist", train=False, folder=options.data)
    shape = tuple(images.shape[1:])
    for name, make in (("Glow", pf.models.Glow), ("FlowPlusPlus", pf.models.FlowPlusPlus)):
        key: Record = {"kind": "flow++ size", "model": name, "steps": options.steps, "batch": options.batch, "seed": 0}
        if "size" not in options.cases or results.where(**key):
            continue
        torch.manual_seed(0)
        model = make(shape)
        losses, each = train(model, images, options.steps, options.batch, 0, 256)
        lowest, rise = math.inf, 0.0
        for loss in losses:
            rise, lowest = max(rise, loss - lowest), min(lowest, loss)
        results.add(key | {
            "first": losses[0], "last": losses[-1], "rise": rise, "bits": bits(model, test[:200]), "images": 200,
            "seconds_a_step": each, "parameters": sum(weight.numel() for weight in model.parameters()),
        })  # fmt: skip
    images, test = images[:, :, 2:26:3, 2:26:3], test[: options.test, :, 2:26:3, 2:26:3]
    for seed in range(options.seeds):
        for method in DEQUANTIZATIONS:
            key = {
                "kind": "flow++ dequantization",
                "dequantize": method,
                "steps": options.small_steps,
                "batch": 64,
                "seed": seed,
            }
            if "dequantization" not in options.cases or results.where(**key):
                continue
            torch.manual_seed(seed)
            model = pf.models.FlowPlusPlus(tuple(images.shape[1:]), dequantize=method, **SMALL)
            losses, each = train(model, images, options.small_steps, 64, seed, 1024)
            results.add(key | {
                "last": losses[-1], "bits": bits(model, test), "bits_16": bits(model, test[:200], 16),
                "seconds_a_step": each, "parameters": sum(weight.numel() for weight in model.parameters()),
            })  # fmt: skip


def tables(options: argparse.Namespace, results: Results) -> str:
    """One table for each of the two questions."""
    found = results.where(kind="flow++ size", steps=options.steps, batch=options.batch)
    rows = [
        [r["model"], f"{r['parameters']:,}", f"{r['first']:.2f}", f"{r['last']:.2f}", f"{r['rise']:.2f}", f"{r['bits']:.2f}",
         f"{r['seconds_a_step']:.2f}"]
        for r in found
    ]  # fmt: skip
    head = [
        "model",
        "parameters",
        "loss of the first 10 steps",
        "of the last 10",
        "largest rise",
        "200 test images",
        "s per step",
    ]
    title = f"Fashion-MNIST, {options.steps} steps of {options.batch}, models with default sizes; bits/dim (bounds), one seed.\n"
    parts = [title, markdown(head, rows), footer("python -m benchmarks.quality.flowpp", found)]
    used, rows = [], []
    key = {"kind": "flow++ dequantization", "steps": options.small_steps, "batch": 64}
    plain = {record["seed"]: record for record in results.where(dequantize="uniform", **key)}
    for method in DEQUANTIZATIONS:
        records = results.where(dequantize=method, **key)
        if not records:
            continue
        used += records
        gains = [plain[record["seed"]]["bits"] - record["bits"] for record in records if record["seed"] in plain]
        rows.append([
            method, f"{records[0]['parameters']:,}", spread([r["bits"] for r in records]), spread([r["bits_16"] for r in records]),
            "" if method == "uniform" else spread(gains), spread([r["seconds_a_step"] for r in records]),
        ])  # fmt: skip
    head = ["dequantization", "parameters", "bits/dim", "200 images, 16 draws", "gain", "s per step"]
    title = (
        f"\nFashion-MNIST in 8 x 8, small Flow++, {options.small_steps} steps of 64; {options.test:,} test images, mean ± standard "
        f"deviation over {options.seeds} seeds.\n"
    )
    return "\n".join([*parts, title, markdown(head, rows), footer("python -m benchmarks.quality.flowpp", used)])


def main() -> None:
    parser = argparse.ArgumentParser(description="Flow++ compared with Glow, and its learned dequantization.")
    parser.add_argument("--data", type=Path, default=os.environ.get("PUSHFORWARD_DATA"), help="data folder")
    parser.add_argument("--cases", nargs="+", default=["dequantization", "size"], choices=["dequantization", "size"])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--small-steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--test", type=int, default=1000, help="small test images")
    parser.add_argument("--out", type=Path, default=Path("runs/quality-flowpp.jsonl"))
    parser.add_argument("--table", action="store_true", help="print existing results and train nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = Results(options.out)
    if not options.table:
        run(options, results)
    print(tables(options, results))


if __name__ == "__main__":
    main()
