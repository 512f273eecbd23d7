"""Two ways of NPE from bounded parameters to the reals: logits, and normal quantiles, by the held-out log-density.

    python -m benchmarks.sbi_bounds --data FOLDER          # tasks of sbibm with a uniform prior; prints a table

The log-density is the mean over 5,000 fresh simulations, nats, which needs no reference draws.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from statistics import mean

import torch

from benchmarks.common.datasets import where
from benchmarks.common.results import spread
from benchmarks.sbi_tasks import Task, load_task
from pushforward import inference

TASKS = ("two_moons", "gaussian_mixture", "slcp", "gaussian_linear_uniform")
WAYS = ("logits", "normal quantiles")
FRESH = 5000


def held_out(task: Task, way: str, simulations: int, seed: int) -> float:
    """Mean log q(theta | x) of fresh simulations under NPE with one network."""
    method = inference.NPE(task.prior)
    if way == "logits":  # as for a prior that crowds at its bounds
        method.prior.skewed = torch.ones(method.prior.features, dtype=torch.bool)
    runs = inference.simulate(task.simulator, task.prior, simulations, seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        posterior = method.fit(runs, seed=seed, progress="silent")
    fresh = inference.simulate(task.simulator, task.prior, FRESH, seed=12_345)
    with torch.no_grad():
        parts = zip(fresh.theta.split(1000), fresh.x.split(1000), strict=True)
        return float(torch.cat([posterior.log_prob(theta, x) for theta, x in parts]).mean())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="data folder; default: the environment variable PUSHFORWARD_DATA")
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    arguments = parser.parse_args()
    print("| task | simulations | logits | normal quantiles | difference |\n| --- | --- | --- | --- | --- |")
    for name in arguments.tasks:
        found: dict[str, list[float]] = {way: [] for way in WAYS}
        task = load_task(name, where(arguments.data))
        for seed in arguments.seeds:
            for way, values in found.items():
                torch.manual_seed(seed)
                values.append(held_out(task, way, arguments.simulations, seed))
        gain = mean(found["normal quantiles"]) - mean(found["logits"])
        shown = " | ".join(spread(values, 2) for values in found.values())
        print(f"| {name} | {arguments.simulations} | {shown} | {gain:+.2f} |", flush=True)


if __name__ == "__main__":
    main()
