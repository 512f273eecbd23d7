"""Two ways of NPE from bounded parameters to the reals: logits, and normal quantiles, by the held-out log-density.

    python -m benchmarks.sbi_bounds --data FOLDER          # runs what is missing of sbibm's tasks with a uniform prior, then prints the table
    python -m benchmarks.sbi_bounds --table                # prints what was measured

The log-density is the mean over 5,000 fresh simulations, nats, which needs no reference draws.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from statistics import mean

import torch

from benchmarks.common.datasets import where
from benchmarks.common.results import Results, footer, markdown, spread
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


def table(results: Results) -> str:
    """One line for each task and number of simulations: mean and spread over seeds, and the mean difference."""
    rows = []
    for name, count in sorted({(record["task"], record["simulations"]) for record in results.records}):
        found = {
            way: [record["held-out"] for record in results.where(task=name, simulations=count, way=way)] for way in WAYS
        }
        gain = mean(found["normal quantiles"]) - mean(found["logits"])
        rows.append([name, str(count), *(spread(values, 2) for values in found.values()), f"{gain:+.2f}"])
    return markdown(["task", "simulations", *WAYS, "difference"], rows)


def main() -> None:
    """Measure what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="data folder; default: the environment variable PUSHFORWARD_DATA")
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--table", action="store_true", help="print what was measured, and run nothing")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/sbi-bounds.jsonl"))
    options = parser.parse_args()
    results = Results(options.out)
    for name in () if options.table else options.tasks:
        task = load_task(name, where(options.data))
        for seed in options.seeds:
            for way in WAYS:
                key = {"task": name, "simulations": options.simulations, "way": way, "seed": seed}
                if not results.where(**key):
                    torch.manual_seed(seed)
                    results.add(key | {"held-out": held_out(task, way, options.simulations, seed)})
    print(table(results))
    print(footer("python -m benchmarks.sbi_bounds", results.records))


if __name__ == "__main__":
    main()
