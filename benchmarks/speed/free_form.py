"""Flows without a triangular Jacobian: the cost of an exact log-determinant, here and in other libraries.

    python -m benchmarks.speed.free_form                   # a few minutes

- A continuous flow of D = 63 with a velocity network 63-128-128-63: ours takes the trace of the Jacobian from the layers'
  products, zuko's CNF (``exact=True``) from D backward passes. Both adapt their steps to a tolerance of 1e-5; the number of
  evaluations depends on weights and solvers, so the methods are compared by the time of one evaluation.
- A residual flow of D = 6: ours with the exact log-determinant by layerwise products, normflows' with its random estimate
  (its default) and with ``brute_force`` where it has one (D = 2 alone).

One thread; the contenders are called in turn in each round, for at least ``--visit`` seconds of CPU time; medians over rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import pushforward as pf
from benchmarks.common.results import machine, markdown

HIDDEN, TOLERANCE = (128, 128), 1e-5


@dataclass
class Contender:
    """One call, and its number of evaluations of the velocity (0 for flows without one)."""

    name: str
    call: Callable[[], Any]
    evaluations: float = 0.0


def counted(module: nn.Module, call: Callable[[], Any], name: str) -> float:
    """Number of calls of a method of a module in one call."""
    count = 0
    method = getattr(module, name)

    def counting(*args: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        return method(*args, **options)

    object.__setattr__(module, name, counting)
    try:
        call()
    finally:
        object.__delattr__(module, name)
    return float(count)


def continuous(features: int, rows: int, train: bool) -> list[Contender]:
    import zuko

    x = torch.randn(rows, features, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    ours = pf.models.CNF(features, hidden=HIDDEN, solver="dopri5", atol=TOLERANCE, rtol=TOLERANCE, standardize=False)
    theirs = zuko.flows.CNF(features, hidden_features=HIDDEN, activation=nn.Tanh, atol=TOLERANCE, rtol=TOLERANCE)
    network = next(part for part in ours.modules() if isinstance(part, pf.networks.VelocityMLP))
    ode = next(part for part in theirs.modules() if isinstance(part, zuko.nn.MLP))
    found = []
    for name, module, log_prob, inside, method in (
        ("pushforward", ours, ours.log_prob, network, "at"),
        ("zuko", theirs, lambda rows: theirs().log_prob(rows), ode, "forward"),
    ):
        call = training(module, log_prob, x) if train else scoring(log_prob, x)
        found.append(Contender(name, call, counted(inside, scoring(log_prob, x), method)))
    return found


def residual(features: int, rows: int, train: bool) -> list[Contender]:
    import normflows as nf

    x = torch.randn(rows, features, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    blocks = 8
    ours = pf.models.ResidualFlow(
        features, blocks=blocks, hidden=HIDDEN, log_det="exact", actnorm=False, standardize=False
    )
    widths = [features, *HIDDEN, features]
    layers: list[nn.Module] = [nf.flows.Residual(nf.nets.LipschitzMLP(widths, 0.9)) for _ in range(blocks)]
    theirs = nf.NormalizingFlow(nf.distributions.DiagGaussian(features, trainable=False), layers)
    found = []
    for name, module, log_prob in (("pushforward", ours, ours.log_prob), ("normflows", theirs, theirs.log_prob)):
        module.train(train)
        found.append(Contender(name, training(module, log_prob, x) if train else scoring(log_prob, x)))
    return found


def scoring(log_prob: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], Any]:
    def call() -> Tensor:
        with torch.no_grad():
            return log_prob(x)

    return call


def training(module: nn.Module, log_prob: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], Any]:
    def call() -> None:
        module.zero_grad()
        (-log_prob(x).mean()).backward()

    return call


def seconds(contenders: list[Contender], rounds: int, visit: float) -> dict[str, list[float]]:
    """CPU seconds of a call, round by round."""
    found: dict[str, list[float]] = {each.name: [] for each in contenders}
    for each in contenders:
        each.call()
    for _ in range(rounds):
        for each in contenders:
            start, calls = time.process_time(), 0
            while time.process_time() - start < visit or not calls:
                each.call()
                calls += 1
            found[each.name].append((time.process_time() - start) / calls)
    return found


CASES: dict[str, Callable[[bool], list[Contender]]] = {
    "CNF, D = 63, B = 512": lambda train: continuous(63, 512, train),
    "CNF, D = 63, B = 64": lambda train: continuous(63, 64, train),
    "residual flow, D = 6, B = 512": lambda train: residual(6, 512, train),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Cost of exact log-determinants of free-form flows, compared with other libraries."
    )
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--visit", type=float, default=0.3, help="least CPU seconds of each round")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for case in options.cases:
        make = CASES[case]
        for work in ("log_prob", "gradient"):
            contenders = make(work == "gradient")
            found = seconds(contenders, options.rounds, options.visit)
            ours, theirs = (found[each.name] for each in contenders)
            ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
            cells = [f"{1e3 * statistics.median(found[each.name]):.3g}" for each in contenders]
            steps = [each.evaluations for each in contenders]
            even = f"{ratio * steps[0] / steps[1]:.3g}" if all(steps) else "–"
            taken = " / ".join(f"{s:.0f}" for s in steps) if all(steps) else "–"
            rows.append([case, work, contenders[1].name, *cells, taken, f"{ratio:.3g}", even])
            print(rows[-1], flush=True)
    head = ["case", "work", "peer", "ours, ms", "peer, ms", "evaluations", "peer / ours", "ratio for one evaluation"]
    print(markdown(head, rows))
    print(f"\nCPU time, one thread, {machine()}.")


if __name__ == "__main__":
    main()
