"""Bits/dim of color images against CPU time, for a Glow and a PixelCNN.

    python -m benchmarks.quality.curve --data DATA                     # trains missing models, draws and prints
    python -m benchmarks.quality.curve --data DATA --table             # only draws and prints

Each model trains by ``pf.fit`` for a fixed number of steps, with a checkpoint, so that a stopped run resumes. An
evaluation is the mean over 500 images held out of the training file; the test images are evaluated once, with the weights of the
best evaluation. Time is the CPU time of the process from the first step on, with evaluations. The numbers of flows are upper
bounds from one draw of the dequantization noise; those of PixelCNN are exact.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import pushforward as pf
from benchmarks.common.datasets import load_images
from benchmarks.common.results import Record, Results, footer, markdown
from pushforward.training import TrainingEvent

COLORS = {"Glow": "#3b6ea5", "NSF": "#6a9a4b", "PixelCNN": "#c8553d"}
HELD_OUT = 500


@dataclass(frozen=True)
class Entry:
    """A model, its training steps, its batch size, and the number of steps between two evaluations."""

    make: Callable[[tuple[int, ...]], pf.models.Model]
    steps: int
    batch: int
    every: int


MODELS = {
    "Glow": Entry(lambda shape: pf.models.Glow(shape, scales=3, layers=8, hidden=(96, 96)), 8000, 32, 100),
    "PixelCNN": Entry(lambda shape: pf.models.PixelCNN(shape, output="logistic", filters=32), 2000, 16, 100),
    "NSF": Entry(
        lambda shape: pf.models.ImageNSF(shape=shape, scales=3, layers=3, hidden=(64,)),
        2000, 32, 50,
    ),
}  # fmt: skip


class Recorder:
    """A callback of ``fit`` that records each evaluation with the CPU time so far, including earlier parts of a resumed run."""

    def __init__(self, results: Results, key: Record, dimensions: int) -> None:
        self.results, self.key, self.dimensions = results, key, dimensions
        self.spent = max((record["cpu"] for record in results.where(kind="curve", **key)), default=0.0)
        self.seen = max((record["step"] for record in results.where(kind="curve", **key)), default=-1)
        self.mark = time.process_time()

    def __call__(self, event: TrainingEvent) -> None:
        if event.step <= self.seen:  # a resumed run repeats the steps since its last checkpoint
            return
        self.spent += time.process_time() - self.mark if event.step else 0.0
        self.mark = time.process_time()
        unit = self.dimensions * math.log(2)
        found: Record = {"step": event.step, "cpu": self.spent}
        if event.validation is not None:
            found["bits"] = -event.validation / unit
        if event.loss is not None:
            found["loss"] = event.loss / unit
        self.results.add({"kind": "curve", **self.key, **found})


def run(options: argparse.Namespace, results: Results) -> None:
    train = load_images(options.set, train=True, folder=options.data)
    test = load_images(options.set, train=False, folder=options.data)[: options.test]
    train, held_out = train[:-HELD_OUT], train[-HELD_OUT:]
    shape = tuple(train.shape[1:])
    for name in options.models:
        entry = MODELS[name]
        steps = options.steps or entry.steps
        key: Record = {"set": options.set, "model": name, "steps": steps, "seed": options.seed}
        if results.where(kind="curve test", **key):
            continue
        torch.manual_seed(options.seed)
        model = entry.make(shape)
        path = options.runs / f"{options.set}-{name}-{steps}-{options.seed}"
        path.parent.mkdir(parents=True, exist_ok=True)
        result = pf.fit(
            model, train, validation=held_out, batch_size=entry.batch, max_steps=steps, ema=None, patience=None, seed=options.seed,
            evaluate_every=entry.every, checkpoint=path.with_suffix(".checkpoint"), progress="silent",
            callback=Recorder(results, key, math.prod(shape)),
        )  # fmt: skip
        pf.save(model, path.with_suffix(".safetensors"))
        results.add({
            "kind": "curve test", **key, "bits": bits(model, test), "images": len(test), "best_step": result.best_step,
            "parameters": sum(weight.numel() for weight in model.parameters()),
        })  # fmt: skip


def bits(model: pf.models.Model, images: Tensor) -> float:
    with torch.no_grad():
        return torch.cat([model.evaluate(part).bits_per_dim().double() for part in images.split(100)]).mean().item()


def draw(options: argparse.Namespace, results: Results, file: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    highest = []
    for name in options.models:
        steps = options.steps or MODELS[name].steps
        records = results.where(kind="curve", set=options.set, model=name, steps=steps, seed=options.seed)
        if len(records) < 2:
            continue
        records = records[1:]  # the untrained model would be far above the other points
        minutes, values = [r["cpu"] / 60 for r in records], [r["bits"] for r in records]
        axes.plot(minutes, values, color=COLORS[name], label=name)
        axes.annotate(f"{values[-1]:.2f}", (minutes[-1], values[-1]), xytext=(4, 0), textcoords="offset points", size=9)
        highest.append(values[0])
    axes.set(xlabel="CPU time, minutes, one thread", ylabel=f"bits/dim, {options.set}, held-out images")
    axes.set_ylim(top=min(8.0, max(highest, default=8.0)))
    axes.margins(x=0.08)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)


SIZES = {"Glow": "Glow, 3 scales of 8 steps, width 96", "PixelCNN": "PixelCNN, gated, 32 filters"}


def table(options: argparse.Namespace, results: Results) -> str:
    """Table of bits/dim at several times, and of the test images at the end."""
    times = (1, 2, 5, 10, 20)
    rows, used = [], []
    for name in options.models:
        steps = options.steps or MODELS[name].steps
        key = {"set": options.set, "model": name, "steps": steps, "seed": options.seed}
        records, ends = results.where(kind="curve", **key), results.where(kind="curve test", **key)
        used += records + ends
        if not records:
            continue
        at = [min((r["bits"] for r in records if r["cpu"] <= 60 * minutes), default=math.nan) for minutes in times]
        last = records[-1]["cpu"] / 60
        shown = [
            "–" if minutes > 1.1 * last or not value < 8 else f"{value:.3f}"
            for minutes, value in zip(times, at, strict=True)
        ]
        end = [f"{ends[0]['parameters']:,}", f"{ends[0]['bits']:.3f}"] if ends else ["", "–"]
        size = SIZES.get(name, name)
        rows.append(
            [
                size,
                end[0],
                f"{steps:,} of {MODELS[name].batch}",
                *shown,
                f"{last:.0f}",
                f"{records[-1]['bits']:.3f}",
                end[1],
            ]
        )
    head = [
        "model",
        "parameters",
        "steps",
        *(f"{minutes} min" for minutes in times),
        "in all, min",
        "held out, end",
        "test",
    ]
    title = (
        f"Bits/dim of {options.set}: {HELD_OUT} held-out images after this CPU time, and test images with the best weights. "
        "Upper bounds for flows, exact for PixelCNN; one seed. Each cell is the lowest value up to that time.\n"
    )
    return "\n".join([title, markdown(head, rows), footer("python -m benchmarks.quality.curve", used)])


def main() -> None:
    parser = argparse.ArgumentParser(description="Bits/dim of color images against CPU time.")
    parser.add_argument("--data", type=Path, default=os.environ.get("PUSHFORWARD_DATA"), help="data folder")
    parser.add_argument("--set", default="cifar10", help="image set")
    parser.add_argument("--models", nargs="+", default=["Glow", "PixelCNN"], choices=list(MODELS))
    parser.add_argument("--steps", type=int, help="training steps of every model, in place of its own number")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--test", type=int, default=10_000, help="most test images")
    parser.add_argument("--runs", type=Path, default=Path("runs/curve"), help="folder of checkpoints and models")
    parser.add_argument("--out", type=Path, default=Path("runs/quality-images.jsonl"))
    parser.add_argument("--picture", type=Path, help="file for the picture")
    parser.add_argument("--table", action="store_true", help="print existing results and train nothing")
    options = parser.parse_args()
    results = Results(options.out)
    if not options.table:
        run(options, results)
    if options.picture:
        draw(options, results, options.picture)
    print(table(options, results))


if __name__ == "__main__":
    main()
