"""Comparison of families of image models: bits/dim of Fashion-MNIST after equal CPU time.

    python -m benchmarks.quality.families --data DATA                # runs missing cases, then prints the table
    python -m benchmarks.quality.families --data DATA --table        # only prints the table

The question is whether a PixelCNN has fewer bits than all flows. Each family gets ``--seconds`` of CPU time with one thread.
Its sizes, in the table below, were chosen beforehand so that it takes hundreds or thousands of steps in that time. First each
learning rate of ``--rates`` gets a tenth of the time, and held-out images choose among them (a single rate is used without a
pilot); held-out images also choose the weights. All models train with ``pf.fit`` (AdamW, cosine schedule over the time). Test
images choose nothing: held-out images decide which PixelCNN and which flow are compared in the end.

Numbers are bits/dim of integers 0 to 255: exact for PixelCNN; upper bounds for flows of dequantized images and for the VAE, of
``--draws`` importance-weighted draws (Burda et al. 2016) each. MAF reads the flattened image.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pushforward as pf
from benchmarks.common.datasets import load_images
from benchmarks.common.results import Record, Results, footer, markdown
from pushforward import models
from pushforward.training import run as training_run

SHAPE, LEVELS, HELD_OUT, CHECKS = (1, 28, 28), 256, 300, 8
PILOT = 0.1
PIXELS = math.prod(SHAPE)


def flat_maf() -> models.Model:
    """MAF of the flattened image, dequantized and transformed by a logit, as in the image experiments of its paper."""
    transforms = pf.transforms
    chain = transforms.Chain(
        transforms.UniformDequantize(SHAPE, LEVELS), transforms.Logit(SHAPE, 0.05), transforms.Flatten(SHAPE),
        *models.MAF(PIXELS, hidden=(512,)).chain,
    )  # fmt: skip
    return models.Flow(chain, pf.distributions.Normal(PIXELS))


FLOWS: dict[str, Callable[[], models.Model]] = {
    "NICE": lambda: models.ImageNICE(shape=SHAPE, hidden=(512, 512)),
    "RealNVP": lambda: models.ImageRealNVP(shape=SHAPE, layers=4, hidden=(32, 32)),
    "Glow": lambda: models.Glow(SHAPE, hidden=(64, 64)),
    "ConvGlow": lambda: models.ConvGlow(SHAPE, hidden=(64, 64)),
    "NSF": lambda: models.ImageNSF(shape=SHAPE, hidden=(32, 32), layers=4),
    "FlowPlusPlus": lambda: models.FlowPlusPlus(SHAPE, layers=(1, 2, 1), components=4, hidden=(32,)),
    "ResidualFlow": lambda: models.ImageResidualFlow(shape=SHAPE, blocks=2, hidden=(32,), terms=2, probes=1),
    "TarFlow": lambda: models.TarFlow(SHAPE),
    "MAF": flat_maf,
}
OTHERS: dict[str, Callable[[], models.Model]] = {
    "VAE": lambda: models.VAE(SHAPE, latent=32, channels=(32, 64)),
    "PixelCNN": lambda: models.PixelCNN(SHAPE, output="logistic", filters=32),
    "PixelCNN, small": lambda: models.PixelCNN(SHAPE, output="logistic", filters=16, layers=4),
    "PixelCNN, small, categorical": lambda: models.PixelCNN(SHAPE, filters=16, layers=4),
    "PixelCNN++": lambda: models.PixelCNN(SHAPE, output="logistic", network="plusplus", filters=16, layers=1),
}
FAMILIES = FLOWS | OTHERS


def train(
    name: str,
    images: Tensor,
    held_out: Tensor,
    seconds: float,
    batch: int,
    rate: float,
    seed: int,
    checks: int = CHECKS,
) -> tuple[Any, Any]:
    """Train a model for this CPU time; returns the model and the result of ``fit``."""
    torch.manual_seed(seed)
    model = FAMILIES[name]()
    # Evaluations cost time too, so their interval is computed from the time of a few steps.
    start = time.process_time()
    model.initialize(images[:batch].float())
    model.train()
    for _ in range(2):
        start = time.process_time()
        model.loss(images[:batch].float()).backward()
    every = max(1, round(seconds / checks / (1.2 * (time.process_time() - start))))
    torch.manual_seed(seed)
    model = FAMILIES[name]()
    result = pf.fit(
        model, images, validation=held_out, batch_size=batch, max_time=seconds, learning_rate=rate, ema=None, patience=None, seed=seed,
        evaluate_every=every, progress="silent",
    )  # fmt: skip
    return model, result


def choose_rate(options: argparse.Namespace, name: str, images: Tensor, held_out: Tensor, seed: int) -> float:
    """The learning rate with the best held-out log-likelihood after a short training."""
    if len(options.rates) == 1:
        return options.rates[0]
    found: dict[float, float] = {}
    for rate in options.rates:
        _, result = train(name, images, held_out, PILOT * options.seconds, options.batch, rate, seed, checks=1)
        found[rate] = result.best_validation
    return max(found, key=found.__getitem__)


@torch.no_grad()
def bits(model: models.Model, images: Tensor, draws: int) -> Tensor:
    """Bits/dim of each image."""
    return torch.cat([model.evaluate(part, samples=draws).bits_per_dim().double() for part in images.split(100)])


def run(options: argparse.Namespace, results: Results) -> None:
    images = load_images("fashion-mnist", train=True, folder=options.data)
    images, held_out = images[:-HELD_OUT], images[-HELD_OUT:]
    test = load_images("fashion-mnist", train=False, folder=options.data)[: options.test]
    training_run.monotonic = time.process_time  # the clock of pf.fit's max_time
    for seed in options.seeds:
        for name in options.families:
            key: Record = {"kind": "families", "family": name, "seed": seed}
            key |= {"seconds": options.seconds, "batch": options.batch}
            if results.where(**key):
                continue
            rate = choose_rate(options, name, images, held_out, seed)
            model, result = train(name, images, held_out, options.seconds, options.batch, rate, seed)
            found = bits(model, test, options.draws)
            results.add(key | {
                "bits": found.mean().item(), "error": found.std().item() / math.sqrt(len(found)),
                "validation": -result.best_validation / (PIXELS * math.log(2)), "images": len(test), "draws": options.draws,
                "likelihood_kind": model.evaluate(test[:1]).kind.name, "rate": rate, "steps": result.steps,
                "best_step": result.best_step, "cpu": result.seconds,
                "parameters": sum(weight.numel() for weight in model.parameters()),
            })  # fmt: skip


def average(records: list[Record], field: str) -> float:
    return statistics.fmean(record[field] for record in records)


def versus(found: dict[str, list[Record]]) -> str:
    """A line that compares the PixelCNN and the flow with the best held-out log-likelihood."""
    best: list[tuple[str, float]] = []
    for pixels in (True, False):
        names = [row for row in found if row.startswith("PixelCNN") is pixels and not row.startswith("VAE")]
        if not names:
            return ""
        name = min(names, key=lambda row: average(found[row], "validation"))
        best.append((name.replace(" | ", " in batches of "), average(found[name], "bits")))
    (ours, bits_ours), (flow, bits_flow) = best
    gap = bits_flow - bits_ours
    return f"\n{ours}: {abs(gap):.3f} bits/dim {'fewer' if gap > 0 else 'more'} than {flow}, the best flow on held-out images."


def table(options: argparse.Namespace, results: Results) -> str:
    """One row for each family and batch size, the fewest bits first; then PixelCNN compared with the flows."""
    found: dict[str, list[Record]] = {}
    for record in results.where(kind="families", seconds=options.seconds):
        found.setdefault(f"{record['family']} | {record['batch']}", []).append(record)
    rows = []
    for name in sorted(found, key=lambda row: average(found[row], "bits")):
        records = found[name]
        values = [record["bits"] for record in records]
        spread = f"± {statistics.stdev(values):.3f}" if len(values) > 1 else f"[{records[0]['error']:.3f}]"
        bound = "" if records[0]["likelihood_kind"] == "EXACT" else "≤ "
        rows.append([
            *name.split(" | "), f"{bound}{average(records, 'bits'):.3f} {spread}", str(len(values)), f"{records[0]['parameters']:,}",
            f"{average(records, 'steps'):,.0f}", ", ".join(f"{r['rate']:g}" for r in records),
        ])  # fmt: skip
    title = (
        f"Fashion-MNIST, bits/dim of test images after {options.seconds:g} s of CPU time; mean ± standard deviation over "
        "seeds, or [standard error over images] of one.\n"
    )
    used = [record for records in found.values() for record in records]
    head = ["family", "batch", "bits/dim", "seeds", "parameters", "steps", "learning rate"]
    return "\n".join(
        [title, markdown(head, rows), versus(found), footer("python -m benchmarks.quality.families", used)]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Families of image models in equal CPU time.")
    parser.add_argument("--data", type=Path, default=os.environ.get("PUSHFORWARD_DATA"), help="data folder")
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=list(FAMILIES), metavar="FAMILY")
    parser.add_argument("--seconds", type=float, default=300.0, help="CPU time of each family")
    parser.add_argument("--batch", type=int, default=32, help="images in a batch")
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 3e-3], help="learning rates to choose from")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--test", type=int, default=2000, help="test images")
    parser.add_argument("--draws", type=int, default=8, help="importance-weighted draws of bounds")
    parser.add_argument("--out", type=Path, default=Path("runs/quality-families.jsonl"))
    parser.add_argument("--table", action="store_true", help="print the table of existing results and run nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = Results(options.out)
    if not options.table:
        run(options, results)
    print(table(options, results))


if __name__ == "__main__":
    main()
