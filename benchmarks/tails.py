"""Long tails, narrow necks and bends: how much of a target a fit covers, and whether it says what it lacks.

    python -m benchmarks.tails            # runs what is missing, then prints the table
    python -m benchmarks.tails --table    # prints what was measured

All targets are normalized, so log Z is 0. Neal's funnel has x_1 ~ N(0, 3^2) and the others N(0, exp(x_1)); the banana
x_1 ~ N(0, 2^2), x_2 ~ N(x_1^2, 0.316^2); the wave x_1 ~ N(0, 3^2), x_2 ~ N(2 sin(pi x_1 / 2), 0.4^2); the cross is half
N(0, diag(3^2, 0.2^2)) and half N(0, diag(0.2^2, 3^2)); the ring has a radius N(5, 0.3^2).
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.common.results import Results, footer, markdown
from pushforward import inference

LogDensity = Callable[[Tensor], Tensor]


def normal(x: Tensor, mean: Tensor | float, std: Tensor | float) -> Tensor:
    """Log-density of a normal distribution."""
    std = torch.as_tensor(std, dtype=x.dtype)
    return -0.5 * ((x - mean) / std).square() - std.log() - 0.5 * math.log(2 * math.pi)


def banana(x: Tensor) -> Tensor:
    """A long bent ridge."""
    return normal(x[:, 0], 0.0, 2.0) + normal(x[:, 1], x[:, 0].square(), 0.316)


def funnel(x: Tensor) -> Tensor:
    """A narrow neck and a wide mouth."""
    return normal(x[:, 0], 0.0, 3.0) + normal(x[:, 1:], 0.0, (x[:, :1] / 2).exp()).sum(1)


def wave(x: Tensor) -> Tensor:
    """A ridge with several bends."""
    return normal(x[:, 0], 0.0, 3.0) + normal(x[:, 1], 2 * (math.pi / 2 * x[:, 0]).sin(), 0.4)


def cross(x: Tensor) -> Tensor:
    """Two long ridges across each other."""
    one = normal(x[:, 0], 0.0, 3.0) + normal(x[:, 1], 0.0, 0.2)
    other = normal(x[:, 0], 0.0, 0.2) + normal(x[:, 1], 0.0, 3.0)
    return torch.logaddexp(one, other) - math.log(2)


def ring(x: Tensor) -> Tensor:
    """A hole in the middle."""
    return normal(x.norm(dim=1), 5.0, 0.3) - math.log(2 * math.pi * 5)


def two_modes(x: Tensor) -> Tensor:
    """Unit normal distributions around (4, 4) and (-4, -4)."""
    return torch.logaddexp(normal(x, 4.0, 1.0).sum(1), normal(x, -4.0, 1.0).sum(1)) - math.log(2)


def cauchy(x: Tensor) -> Tensor:
    """Independent Cauchy distributions."""
    return (-x.square().log1p() - math.log(math.pi)).sum(1)


TARGETS: dict[str, tuple[int, LogDensity]] = {
    "banana": (2, banana),
    "funnel, D = 2": (2, funnel),
    "funnel, D = 10": (10, funnel),
    "wave": (2, wave),
    "cross": (2, cross),
    "ring": (2, ring),
    "two modes": (2, two_modes),
    "Cauchy": (2, cauchy),
}


def run(name: str, seed: int) -> dict[str, float | str]:
    """A fit with the defaults."""
    features, log_density = TARGETS[name]
    started = time.process_time()
    fit = inference.fit_to_target(features, log_density, seed=seed, progress="silent")
    return {
        "objective": fit.objective, "log Z": fit.log_evidence, "stated error": fit.log_evidence_error, "k_hat": fit.k_hat,
        "missing": fit.missing, "reliable": fit.reliable, "steps": fit.training.steps, "seconds": time.process_time() - started,
    }  # fmt: skip


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description="Long tails, narrow necks and bends: what a fit covers.")
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), choices=list(TARGETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--table", action="store_true", help="print what was measured, and run nothing")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/tails.jsonl"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    results = Results(options.out)
    if not options.table:
        for name in options.targets:
            for seed in options.seeds:
                if not results.where(target=name, seed=seed):
                    results.add({"target": name, "seed": seed} | run(name, seed))
    order = list(TARGETS)
    found = sorted(results.records, key=lambda r: (order.index(r["target"]), r["seed"]))
    rows = [
        [
            r["target"], str(r["seed"]), r["objective"], f"{r['log Z']:+.3f} +- {r['stated error']:.3f}",
            f"{r['k_hat']:.2f}", f"{r['missing']:.1%}", "yes" if r["reliable"] else "no", f"{r['steps']:,}", f"{r['seconds']:.0f}",
        ]
        for r in found
    ]  # fmt: skip
    head = ["target", "seed", "objective", "log Z (0)", "k-hat", "missing", "reliable", "steps", "CPU s"]
    print(markdown(head, rows))
    print(footer("python -m benchmarks.tails", results.records))


if __name__ == "__main__":
    main()
