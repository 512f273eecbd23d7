"""Posteriors of posteriordb: flows fitted to the log-density, against the reference draws, NUTS and another library.

    python -m benchmarks.posteriors --data FOLDER                     # runs what is missing, then prints the table
    python -m benchmarks.posteriors --methods pushforward nuts normflows

Errors are the largest over the columns of the reference draws: means in units of the reference's standard deviations, and the
relative error of standard deviations. "weighted" uses the importance weights of the flow's draws, "raw" the draws themselves.
``nuts`` is Pyro's on the same log-density, with 500 steps of adaptation and 1,000 draws, and ends without a result after ``--most`` CPU
seconds. ``normflows`` is a spline flow of the
package normflows with reverse KL, on the same unconstrained log-density and for the CPU seconds that our fit took.
"""

from __future__ import annotations

import argparse
import math
import signal
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pushforward as pf
from benchmarks.common.datasets import where
from benchmarks.common.results import Results, footer, markdown
from benchmarks.posterior_models import POSTERIORS, Posterior, load_posterior, reference_draws
from pushforward import inference

METHODS = ("pushforward", "nuts", "normflows")


def errors(columns: Tensor, log_weights: Tensor | None, truth: Tensor) -> tuple[float, float]:
    """Largest error of a mean, in standard deviations, and largest relative error of a standard deviation."""
    weights = (
        torch.full((len(columns),), 1 / len(columns), dtype=torch.float64) if log_weights is None else log_weights.exp()
    )
    mean = weights @ columns
    std = (weights @ (columns - mean).square()).sqrt()
    return float(((mean - truth.mean(0)) / truth.std(0)).abs().max()), float((std / truth.std(0) - 1).abs().max())


def _pushforward(model: Posterior, truth: Tensor, steps: int, seed: int, path: Path) -> dict[str, Any]:
    torch.manual_seed(seed)
    started = time.process_time()
    fit = inference.fit_to_target(
        None, model.log_density, parameters=model.parameters, max_steps=steps, seed=seed, progress="silent"
    )
    seconds = time.process_time() - started
    path.parent.mkdir(parents=True, exist_ok=True)
    pf.save(fit.flow, path)
    columns = model.columns(model.parameters.unflatten(fit.draws))
    mean, std = errors(columns, fit.weights.log_weights, truth)
    raw_mean, raw_std = errors(columns[: len(fit.flow_weights.log_ratios)], None, truth)
    return {
        "mean": mean, "std": std, "raw mean": raw_mean, "raw std": raw_std, "k_hat": fit.k_hat, "ess": fit.ess,
        "flow k_hat": fit.flow_weights.k_hat, "steps taken": fit.training.steps, "stopped": fit.training.stopped,
        "seconds": seconds, "dropped": len(fit.dropped_modes),
    }  # fmt: skip


def _nuts(model: Posterior, truth: Tensor, seed: int, most: float) -> dict[str, Any]:
    """NUTS, or the time after which it was stopped."""

    def stop(*_: object) -> None:
        raise TimeoutError

    previous = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, most)  # CPU time of this process
    try:
        return _draw_nuts(model, truth, seed)
    except TimeoutError:
        return {"seconds": most, "stopped": "no result"}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)


def _draw_nuts(model: Posterior, truth: Tensor, seed: int) -> dict[str, Any]:
    from pyro.infer import MCMC, NUTS

    target = inference.Target(model.log_density, model.parameters.features, model.parameters)
    torch.manual_seed(seed)
    started = time.process_time()
    start = inference.find_modes(target, torch.zeros(1, target.features, dtype=torch.float64))[0].location
    kernel = NUTS(potential_fn=lambda p: -target(p["u"][None])[0])
    chain = MCMC(kernel, num_samples=1000, warmup_steps=500, initial_params={"u": start}, disable_progbar=True)
    chain.run()
    seconds = time.process_time() - started
    draws = target.constrain(chain.get_samples()["u"])
    mean, std = errors(model.columns(model.parameters.unflatten(draws)), None, truth)
    return {"raw mean": mean, "raw std": std, "seconds": seconds}


def _normflows(model: Posterior, truth: Tensor, seed: int, budget: float) -> dict[str, Any]:
    import normflows

    target = inference.Target(model.log_density, model.parameters.features, model.parameters)
    width = target.features
    torch.manual_seed(seed)
    layers: list[Any] = []
    for _ in range(6):
        layers.append(normflows.flows.CoupledRationalQuadraticSpline(width, 2, 64, num_bins=8, tail_bound=5.0))
        layers.append(normflows.flows.LULinearPermute(width))

    class Density(normflows.distributions.Target):
        def log_prob(self, z: Tensor) -> Tensor:
            return target(z).to(z.dtype)

    flow = normflows.NormalizingFlow(normflows.distributions.DiagGaussian(width), layers, Density())
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-3)
    started = time.process_time()
    while time.process_time() - started < budget:
        loss = flow.reverse_kld(512, score_fn=False)  # sticking the landing
        if torch.isfinite(loss):
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(flow.parameters(), 5.0)
            optimizer.step()
    with torch.no_grad():
        u, log_q = flow.sample(10_000)
        ratios = target(u) - log_q.double()
        draws = target.constrain(u)
    columns = model.columns(model.parameters.unflatten(draws))
    raw_mean, raw_std = errors(columns, None, truth)
    log_weights = torch.nan_to_num(ratios, nan=-math.inf, posinf=-math.inf)
    if not torch.isfinite(log_weights).any():  # no draw where the target has mass
        return {"raw mean": raw_mean, "raw std": raw_std, "k_hat": math.inf, "ess": 0.0, "seconds": budget}
    weights = inference.ImportanceWeights.of(log_weights)
    mean, std = errors(columns, weights.log_weights, truth)
    return {
        "mean": mean,
        "std": std,
        "raw mean": raw_mean,
        "raw std": raw_std,
        "k_hat": weights.k_hat,
        "ess": weights.ess,
        "seconds": budget,
    }


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description="Posteriors of posteriordb by flows, NUTS and normflows.")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--names", nargs="+", default=list(POSTERIORS), choices=list(POSTERIORS))
    parser.add_argument("--methods", nargs="+", default=["pushforward"], choices=METHODS)
    parser.add_argument("--table", action="store_true", help="print what was measured, and run nothing")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most", type=float, default=240.0, help="CPU seconds of NUTS")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/posteriors.jsonl"))
    parser.add_argument("--flows", type=Path, default=Path("runs/posteriors"))
    options = parser.parse_args()
    folder = Path() if options.table else where(options.data)
    if folder is None:
        parser.error("name the folder with the data sets with --data or PUSHFORWARD_DATA")
    warnings.simplefilter("ignore")
    results, rows = Results(options.out), []
    for name in options.names:
        if not options.table:
            model, truth = load_posterior(name, folder), reference_draws(name, folder)
        for method in options.methods:
            key = {"posterior": name, "method": method, "seed": options.seed, "steps": options.steps}
            if not results.where(**key) and options.table:
                continue
            if not results.where(**key):
                if method == "pushforward":
                    found = _pushforward(
                        model, truth, options.steps, options.seed, options.flows / f"{name}-{options.seed}.safetensors"
                    )
                elif method == "nuts":
                    found = _nuts(model, truth, options.seed, options.most)
                else:
                    own = results.where(**key | {"method": "pushforward"})
                    if not own:
                        parser.error("normflows gets the time of our fit: run --methods pushforward first")
                    found = _normflows(model, truth, options.seed, own[0]["seconds"])
                results.add(key | found)
            entry = results.where(**key)[0]
            shown = [
                f"{entry[column]:.3f}" if math.isfinite(entry.get(column, math.nan)) else ""
                for column in ("mean", "std", "raw mean", "raw std")
            ]
            diagnostics = [f"{entry['k_hat']:.2f}", f"{entry['ess']:.0f}"] if "k_hat" in entry else ["", ""]
            stopped = "over " if "stopped" in entry and method == "nuts" else ""
            rows.append([name, method, *shown, *diagnostics, f"{stopped}{entry['seconds']:.0f}"])
    head = [
        "posterior",
        "method",
        "weighted mean",
        "weighted std",
        "raw mean",
        "raw std",
        "k-hat",
        "ESS of 10,000",
        "CPU s",
    ]
    print(markdown(head, rows))
    print(footer(f"python -m benchmarks.posteriors --steps {options.steps}", results.records))


if __name__ == "__main__":
    main()
