"""Targets with several modes: which objective finds them, and how well it estimates log Z.

    python -m benchmarks.modes                       # runs what is missing, then prints the table
    python -m benchmarks.modes --targets many-well-32 --objectives fab --steps 3000 --seeds 0 1 2

GMM-40 is the mixture of Midgley et al. 2023 (40 normal distributions in [-40, 40]^2, with centers of its own); Many Well is
theirs too: D / 2 independent double wells exp(-x^4 + 6 x^2 + x / 2 - y^2 / 2), with 2^(D / 2) modes. "modes" counts those that
have at least a tenth of their mass among 10,000 draws, of the modes of which exact draws would have at least ten.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common.results import Results, footer, markdown
from pushforward import inference


@dataclass(frozen=True)
class Modes:
    """A target, its log Z, the centers of its modes with their masses, and where to search."""

    features: int
    log_density: Callable[[Tensor], Tensor]
    log_evidence: float
    centers: Tensor
    masses: Tensor
    spread: float


def gmm(count: int = 40, bound: float = 40.0) -> Modes:
    """Normal distributions of equal mass and standard deviation log(1 + e), with centers in [-bound, bound]^2."""
    centers = 2 * bound * (torch.rand(count, 2, generator=torch.Generator().manual_seed(0)) - 0.5)
    scale = math.log(1 + math.e)

    def log_density(x: Tensor) -> Tensor:
        squares = (x[:, None] - centers.to(x)).square().sum(-1)
        return torch.logsumexp(-0.5 * squares / scale**2, 1) - math.log(count) - math.log(2 * math.pi * scale**2)

    return Modes(2, log_density, 0.0, centers.double(), torch.full((count,), 1 / count), bound)


def many_well(features: int) -> Modes:
    """Independent double wells, with log Z and masses by quadrature; of 32 dimensions the modes of ten wells."""

    def log_density(x: Tensor) -> Tensor:
        first, second = x[:, 0::2], x[:, 1::2]
        return (-first.pow(4) + 6 * first.square() + 0.5 * first - 0.5 * second.square()).sum(-1)

    grid = torch.linspace(-5, 5, 200_001, dtype=torch.float64)
    values = (-grid.pow(4) + 6 * grid.square() + 0.5 * grid).exp() * (grid[1] - grid[0])
    one, right = float(values.sum()), float(values[grid > 0].sum())
    wells = features // 2
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * min(wells, 10)).reshape(-1, min(wells, 10)).double()
    masses = torch.where(signs > 0, right / one, 1 - right / one).prod(1)
    centers = torch.zeros(len(signs), features, dtype=torch.float64)
    centers[:, 0 : 2 * signs.shape[1] : 2] = 1.7 * signs
    return Modes(features, log_density, wells * (math.log(one) + 0.5 * math.log(2 * math.pi)), centers, masses, 3.0)


def ring() -> Modes:
    """Radius normal around 8 with standard deviation 0.5: one connected mode that a normal distribution cannot cover."""

    def log_density(x: Tensor) -> Tensor:
        return -0.5 * ((x.norm(dim=1) - 8.0) / 0.5).square()

    radius = torch.linspace(0, 20, 200_001, dtype=torch.float64)
    one = float((radius * (-0.5 * ((radius - 8) / 0.5) ** 2).exp()).sum() * (radius[1] - radius[0]))
    angles = torch.arange(16) * math.pi / 8
    centers = 8 * torch.stack((angles.cos(), angles.sin()), 1).double()
    return Modes(2, log_density, math.log(2 * math.pi * one), centers, torch.full((16,), 1 / 16), 10.0)


def two_moons() -> Modes:
    """Two crescents: radius normal around 2 with deviation 0.2, first coordinate around -2 or 2 with deviation 0.3."""

    def log_density(x: Tensor) -> Tensor:
        sides = torch.stack((x[:, 0] - 2, x[:, 0] + 2)) / 0.3
        return -0.5 * ((x.norm(dim=1) - 2) / 0.2).square() + torch.logsumexp(-0.5 * sides.square(), 0)

    grid = torch.linspace(-5, 5, 2001, dtype=torch.float64)
    values = log_density(torch.cartesian_prod(grid, grid)).exp()
    centers = torch.tensor([[2.0, 0.0], [-2.0, 0.0]], dtype=torch.float64)
    return Modes(
        2,
        log_density,
        math.log(float(values.sum()) * float(grid[1] - grid[0]) ** 2),
        centers,
        torch.full((2,), 0.5),
        4.0,
    )


TARGETS: dict[str, Callable[[], Modes]] = {
    "gmm-40": gmm,
    "many-well-6": lambda: many_well(6),
    "many-well-32": lambda: many_well(32),
    "two-moons": two_moons,
    "ring": ring,
}


def run(target: Modes, objective: str, steps: int, seed: int) -> dict[str, float]:
    """Fit the default flow, and count the modes among its draws."""
    torch.manual_seed(seed)
    started = time.process_time()
    fit = inference.fit_to_target(
        target.features, target.log_density, objective=objective, spread=target.spread, restarts=64, max_steps=steps,
        learning_rate=2e-3, seed=seed, progress="silent",
    )  # fmt: skip
    return figures(target, fit, fit.draws, time.process_time() - started)


def peer(name: str, target: Modes, steps: int, seed: int) -> dict[str, float]:
    """The same of fab-torch; its fits have no check of modes, so "reliable" is that of the weights alone."""
    from benchmarks.modes_fab_torch import draw_and_weigh

    torch.manual_seed(seed)
    started = time.process_time()
    draws, log_ratios = draw_and_weigh(name, target.features, target.log_density, steps, 10_000)
    finite = torch.isfinite(draws).all(1) & ~torch.isnan(log_ratios)
    weights = inference.ImportanceWeights.of(torch.where(finite, log_ratios, -torch.inf))
    return figures(target, weights, draws[finite], time.process_time() - started)


def figures(target: Modes, fit: Any, draws: Tensor, seconds: float) -> dict[str, float]:
    """Modes among the draws, and what the weights say."""
    used = (target.centers != 0).any(0)
    nearest = torch.cdist(draws[:, used].double(), target.centers[:, used]).argmin(1)
    fractions = torch.bincount(nearest, minlength=len(target.centers)) / len(draws)
    counted = target.masses * len(draws) >= 10
    return {
        "modes": int((fractions > 0.1 * target.masses)[counted].sum()), "of": int(counted.sum()),
        "log Z error": fit.log_evidence - target.log_evidence, "stated error": fit.log_evidence_error, "ess": fit.ess,
        "k_hat": fit.k_hat, "reliable": fit.reliable, "seconds": seconds,
    }  # fmt: skip


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description="Targets with several modes: reverse KL and alpha = 2 with annealing.")
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), choices=list(TARGETS))
    parser.add_argument(
        "--objectives",
        nargs="+",
        default=["reverse-kl", "fab"],
        choices=["reverse-kl", "importance-weighted", "fab", "fab-torch"],
    )
    parser.add_argument("--table", action="store_true", help="print what was measured, and run nothing")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/modes.jsonl"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    results = Results(options.out)
    if not options.table:
        for name in options.targets:
            for objective in options.objectives:
                for seed in options.seeds:
                    key = {"target": name, "objective": objective, "steps": options.steps, "seed": seed}
                    if not results.where(**key):
                        target = TARGETS[name]()
                        found = (
                            peer(name, target, options.steps, seed)
                            if objective == "fab-torch"
                            else run(target, objective, options.steps, seed)
                        )
                        results.add(key | found)
    order, objectives = list(TARGETS), ["reverse-kl", "importance-weighted", "fab", "fab-torch"]
    found = sorted(
        results.records,
        key=lambda r: (order.index(r["target"]), objectives.index(r["objective"]), r["steps"], r["seed"]),
    )
    rows = [
        [
            r["target"], r["objective"], f"{r['steps']:,}", str(r["seed"]), f"{r['modes']} of {r['of']}", f"{r['log Z error']:+.3f} +- {r['stated error']:.3f}",
            f"{r['ess']:.0f}", f"{r['k_hat']:.2f}", "yes" if r["reliable"] else "no", f"{r['seconds']:.0f}",
        ]
        for r in found
    ]  # fmt: skip
    head = [
        "target",
        "objective",
        "steps",
        "seed",
        "modes",
        "log Z error",
        "ESS of 10,000",
        "k-hat",
        "reliable",
        "CPU s",
    ]
    print(markdown(head, rows))
    print(footer("python -m benchmarks.modes", results.records))


if __name__ == "__main__":
    main()
