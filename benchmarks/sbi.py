"""Simulation-based inference on the tasks of sbibm: C2ST of posteriors against the reference draws.

    python -m benchmarks.sbi --data FOLDER                          # runs what is missing, then prints the table
    python -m benchmarks.sbi --methods auto npe nle sbi-npe --simulations 1000 --seeds 0 1 2
    python -m benchmarks.sbi --methods snle --simulations 10000 --tasks two_moons slcp --observations 1 2

C2ST is the cross-validated accuracy of an MLP between draws of a posterior and of the reference: 0.5 is perfect, 1 is
worst. ``sbi-npe`` is NPE of the package sbi at its defaults, on the same simulations. ``snle`` and ``snpe`` are four sequential
rounds for each observation. Seconds are CPU seconds of training and
of the draws.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from benchmarks.c2st import c2st
from benchmarks.common.datasets import where
from benchmarks.common.results import Results, footer, markdown, spread
from benchmarks.sbi_tasks import TASKS, Task, load_task, observation, reference
from pushforward import inference

METHODS = ("auto", "npe", "nle", "nre", "snle", "snpe", "sbi-npe")
ROUNDS = 4
PUBLISHED = {  # C2ST of NPE and NLE at 10^3 and 10^4 simulations, means of ten observations (results of the paper)
    "two_moons": {1000: (0.725, 0.773), 10_000: (0.606, 0.713)},
    "slcp": {1000: (0.975, 0.946), 10_000: (0.901, 0.771)},
    "gaussian_mixture": {1000: (0.716, 0.740), 10_000: (0.615, 0.723)},
    "gaussian_linear": {1000: (0.694, 0.650), 10_000: (0.552, 0.555)},
    "gaussian_linear_uniform": {1000: (0.696, 0.723), 10_000: (0.553, 0.548)},
    "bernoulli_glm": {1000: (0.863, 0.740), 10_000: (0.678, 0.605)},
    "sir": {1000: (0.815, 0.761), 10_000: (0.680, 0.748)},
    "lotka_volterra": {1000: (0.999, 0.994), 10_000: (0.997, 0.956)},
}


SEQUENTIAL = {  # the same of SNPE and SNLE
    "two_moons": {1000: (0.643, 0.657), 10_000: (0.554, 0.571)},
    "slcp": {1000: (0.965, 0.921), 10_000: (0.845, 0.713)},
    "gaussian_mixture": {1000: (0.669, 0.706), 10_000: (0.551, 0.685)},
    "gaussian_linear": {1000: (0.652, 0.628), 10_000: (0.544, 0.548)},
    "gaussian_linear_uniform": {1000: (0.631, 0.657), 10_000: (0.527, 0.552)},
    "bernoulli_glm": {1000: (0.855, 0.634), 10_000: (0.614, 0.553)},
    "sir": {1000: (0.638, 0.745), 10_000: (0.561, 0.745)},
    "lotka_volterra": {1000: (0.990, 0.909), 10_000: (0.953, 0.738)},
}


def _train(method: str, task: Task, simulations: int, seed: int, members: int, path: Path) -> dict[str, Any]:
    """Train and write the posterior, so that a stopped benchmark goes on; CPU seconds, and the scores of "auto"."""
    torch.manual_seed(seed)
    runs = inference.simulate(task.simulator, task.prior, simulations, seed=seed)
    started = time.process_time()
    post = inference.infer(task.prior, runs, method=method, members=members, seed=seed, progress="silent")
    seconds = time.process_time() - started
    path.parent.mkdir(parents=True, exist_ok=True)
    post.save(path)
    return {"training s": seconds, "chosen": post.method, "scores": getattr(post, "scores", None)}


def _measure(draw: Callable[[Tensor, int], Tensor], name: str, number: int, draws: int, folder: Path) -> dict[str, Any]:
    started = time.process_time()
    made = draw(observation(name, number, folder), draws)
    seconds = time.process_time() - started
    return {"c2st": c2st(reference(name, number, folder)[:draws], made.float()), "sampling s": seconds}


def _sequential(
    method: str, task: Task, x: Tensor, simulations: int, seed: int, members: int, path: Path
) -> dict[str, Any]:
    """As :func:`_train`, with rounds for one observation."""
    torch.manual_seed(seed)
    kind = {"snle": inference.NLE, "snpe": inference.NPE}[method]
    started = time.process_time()
    post = inference.sequential(
        kind(task.prior, members=members), task.simulator, x, rounds=ROUNDS, simulations=simulations // ROUNDS, seed=seed, progress="silent"
    )  # fmt: skip
    seconds = time.process_time() - started
    path.parent.mkdir(parents=True, exist_ok=True)
    post.save(path)
    return {"training s": seconds, "chosen": method}


def _sbi(task: Task, simulations: int, seed: int) -> tuple[Callable[[Tensor, int], Tensor], float]:
    """NPE of the package sbi at its defaults."""
    from sbi.inference import NPE
    from sbi.utils import BoxUniform

    prior = task.prior
    if isinstance(prior, torch.distributions.Uniform):
        prior = BoxUniform(prior.low, prior.high)
    elif not prior.event_shape:
        prior = torch.distributions.Independent(prior, 1)
    torch.manual_seed(seed)
    runs = inference.simulate(task.simulator, task.prior, simulations, seed=seed)
    started = time.process_time()
    trainer = NPE(prior=prior, show_progress_bars=False)
    trainer.append_simulations(runs.theta, runs.x).train()
    posterior = trainer.build_posterior()
    seconds = time.process_time() - started
    return lambda x, count: posterior.sample((count,), x=x, show_progress_bars=False), seconds


def run(
    method: str, task: Task, count: int, seed: int, folder: Path, options: argparse.Namespace, results: Results
) -> None:
    """What is missing of one cell: the training, then each observation."""
    key = {"task": task.name, "method": method, "simulations": count, "seed": seed, "members": options.members}
    missing = [n for n in options.observations if not results.where(**key, observation=n, draws=options.draws)]
    if not missing:
        return
    if method in ("snle", "snpe"):
        for number in missing:
            path = options.posteriors / f"{task.name}-{method}-{count}-{seed}-{options.members}-{number}.safetensors"
            x = observation(task.name, number, folder)
            if not results.where(**key, part="training", observation=number) or not path.exists():
                trained = _sequential(method, task, x, count, seed, options.members, path)
                results.add(key | {"part": "training", "observation": number} | trained)
            post = inference.load_posterior(path)
            draw = lambda x, wanted, post=post: post.sample(wanted, x=x, seed=seed)  # noqa: E731
            results.add(
                key
                | {"observation": number, "draws": options.draws}
                | _measure(draw, task.name, number, options.draws, folder)
            )
        return
    if method == "sbi-npe":
        draw, seconds = _sbi(task, count, seed)
        if not results.where(**key, part="training"):
            results.add(key | {"part": "training", "training s": seconds, "chosen": "sbi-npe"})
    else:
        path = options.posteriors / f"{task.name}-{method}-{count}-{seed}-{options.members}.safetensors"
        if not results.where(**key, part="training") or not path.exists():
            results.add(key | {"part": "training"} | _train(method, task, count, seed, options.members, path))
        post = inference.load_posterior(path)

        draw = lambda x, wanted: post.sample(wanted, x=x, seed=seed)  # noqa: E731

    for number in missing:
        results.add(
            key
            | {"observation": number, "draws": options.draws}
            | _measure(draw, task.name, number, options.draws, folder)
        )


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description="Posteriors of simulators: C2ST on the tasks of sbibm.")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--methods", nargs="+", default=["auto"], choices=METHODS)
    parser.add_argument("--simulations", nargs="+", type=int, default=[1000, 10_000])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--observations", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument("--draws", type=int, default=10_000)
    parser.add_argument("--table", action="store_true", help="print what was measured, and run nothing")
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/sbi.jsonl"))
    parser.add_argument("--posteriors", type=Path, default=Path("runs/sbi"))
    options = parser.parse_args()
    folder = Path() if options.table else where(options.data)
    if folder is None:
        parser.error("name the folder with the data sets with --data or PUSHFORWARD_DATA")
    warnings.simplefilter("ignore")
    results = Results(options.out)
    if not options.table:
        for count in options.simulations:
            for name in options.tasks:
                task = load_task(name, folder)
                for method in options.methods:
                    for seed in options.seeds:
                        run(method, task, count, seed, folder, options, results)
    rows = []
    cells = sorted(
        {(r["simulations"], r["task"], r["method"], r["members"], r["draws"]) for r in results.records if "c2st" in r}
    )
    for count, name, method, members, draws in cells:
        key = {"task": name, "method": method, "simulations": count, "members": members}
        found = [r for r in results.where(**key, draws=draws) if "c2st" in r]
        trained = results.where(**key, part="training")
        seeds = sorted({r["seed"] for r in found})
        means = [mean(r["c2st"] for r in found if r["seed"] == seed) for seed in seeds]
        published = (SEQUENTIAL if method in ("snle", "snpe") else PUBLISHED)[name].get(count, (float("nan"),) * 2)
        rows.append([
            name, str(count), method, str(members), f"{len(found)} x {draws}", spread(means), f"{published[0]:.3f}",
            f"{published[1]:.3f}", f"{mean(r['training s'] for r in trained):.0f}",
            f"{mean(r['sampling s'] for r in found):.1f}", "/".join(sorted({r["chosen"] for r in trained})),
        ])  # fmt: skip
    head = [
        "task",
        "simulations",
        "method",
        "members",
        "observations x draws",
        "C2ST",
        "published (S)NPE",
        "published (S)NLE",
        "training s",
        "sampling s",
        "chosen",
    ]
    print(markdown(head, rows))
    print(footer("python -m benchmarks.sbi", results.records))


if __name__ == "__main__":
    main()
