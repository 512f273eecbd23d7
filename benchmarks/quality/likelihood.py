"""Test log-likelihoods of the models of pushforward and of a full-covariance Gaussian, in equal time.

    python -m benchmarks.quality.likelihood --data DATA --seconds 60     # runs missing cases, then prints the table
    python -m benchmarks.quality.likelihood --data DATA --table          # only prints the table

Each model has its class's default sizes and is trained by ``pf.fit`` for ``--seconds`` of wall time, one at a time,
with AdamW at 1e-3 on batches of 512 and a cosine schedule over the time; validation rows choose the weights. On a
busy machine, ``--clock cpu --threads 1`` counts CPU seconds of the one thread instead. The Gaussian is the maximum-likelihood fit
in closed form.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pushforward as pf
from benchmarks.common.results import Results, footer, markdown, mean_and_spread
from benchmarks.quality.data import SETS, Split, add_data_option, load
from pushforward.training import run as training_run

FLOWS: dict[str, Callable[[int], pf.models.Model]] = {
    "NICE": pf.models.NICE,
    "RealNVP": pf.models.RealNVP,
    "MAF": pf.models.MAF,
    "NSF (C)": lambda features: pf.models.NSF(features, layer="coupling"),
    "NSF (AR)": lambda features: pf.models.NSF(features, layer="autoregressive"),
}
MODELS = ("Gaussian", *FLOWS)
ROWS = 4096


def gaussian(split: Split) -> dict[str, Any]:
    rows = split.train.double()
    normal = torch.distributions.MultivariateNormal(rows.mean(0), torch.cov(rows.mT, correction=0))
    test, validation = (normal.log_prob(part.double()).mean().item() for part in (split.test, split.validation))
    features = split.features
    return {"test": test, "validation": validation, "parameters": features * (features + 3) // 2}


def flow(name: str, split: Split, seconds: float, seed: int) -> dict[str, Any]:
    torch.manual_seed(seed)
    model = FLOWS[name](split.features)
    start = time.perf_counter()
    result = pf.fit(
        model,
        split.train,
        validation=split.validation,
        max_time=seconds,
        batch_size=512,
        ema=None,
        patience=None,
        seed=seed,
        progress="silent",
    )
    return {
        "test": mean_log_prob(model, split.test),
        "validation": mean_log_prob(model, split.validation),
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "steps": result.steps,
        "best_step": result.best_step,
        "wall": round(time.perf_counter() - start, 1),
    }


def mean_log_prob(model: pf.models.Model, rows: Tensor) -> float:
    with torch.no_grad():
        return torch.cat([model.log_prob(part) for part in rows.split(ROWS)]).double().mean().item()


def run(options: argparse.Namespace, results: Results) -> None:
    for name in options.sets:
        for seed in range(options.seeds):
            split = None
            for model in options.models:
                seconds = 0.0 if model == "Gaussian" else options.seconds
                key = {"set": name, "model": model, "seed": seed, "seconds": seconds}
                if results.where(**key):
                    continue
                split = split or load(name, seed, options.data)
                found = gaussian(split) if model == "Gaussian" else flow(model, split, seconds, seed)
                for part in ("test", "validation"):
                    found[part] += split.offset
                results.add(key | found)


def table(options: argparse.Namespace, results: Results) -> str:
    """One row for each set, one column for each model, the best mean in bold."""
    rows, used = [], []
    for name in options.sets:
        found = {
            model: results.where(set=name, model=model, seconds=0.0 if model == "Gaussian" else options.seconds)
            for model in options.models
        }
        records = [record for part in found.values() for record in part]
        if not records:
            continue
        used += records
        tests = {model: [record["test"] for record in part] for model, part in found.items()}
        best = max((model for model in tests if tests[model]), key=lambda model: sum(tests[model]) / len(tests[model]))
        cells = [mean_and_spread(tests[model]) for model in options.models]
        rows.append([name, *(f"**{c}**" if m == best else c for m, c in zip(options.models, cells, strict=True))])
    steps = [
        f"{model} {min(counts):,} to {max(counts):,}"
        for model in options.models
        if (counts := [r["steps"] for r in used if r["model"] == model and "steps" in r])
    ]
    title = (
        f"Test log-likelihood in nats after {options.seconds:g} s of training, mean ± standard deviation over seeds "
        f"(and so over splits). Steps taken: {', '.join(steps) or 'none'}.\n"
    )
    clock = " --clock cpu --threads 1" if options.clock == "cpu" else ""
    command = f"python -m benchmarks.quality.likelihood --seconds {options.seconds:g}{clock}"
    return "\n".join([title, markdown(["set", *options.models], rows), footer(command, used)])


def main() -> None:
    parser = argparse.ArgumentParser(description="Test log-likelihoods in equal time.")
    add_data_option(parser)
    parser.add_argument("--sets", nargs="+", default=list(SETS), metavar="SET")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--seconds", type=float, default=60.0, help="training time of each model")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="wall time or CPU time")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=Path("runs/quality-likelihood.jsonl"))
    parser.add_argument("--table", action="store_true", help="print the table of existing results and run nothing")
    options = parser.parse_args()
    if options.clock == "cpu" and options.threads != 1 and not options.table:
        parser.error("--clock cpu adds the seconds of all threads: use it with --threads 1.")
    torch.set_num_threads(options.threads)
    if options.clock == "cpu" and not options.table:
        training_run.monotonic = time.process_time  # the clock of pf.fit's max_time
    results = Results(options.out)
    if not options.table:
        run(options, results)
    print(table(options, results))


if __name__ == "__main__":
    main()
