"""The ready-made flows of each library, trained for the same CPU time with one thread: test log-likelihoods.

    python -m benchmarks.quality.ready_made --data DATA --seconds 60     # runs missing cases, then prints the table
    python -m benchmarks.quality.ready_made --data DATA --table          # only prints the table

This measures the result of a user who takes a library's spline flow and its masked affine flow with the sizes that it proposes: the
defaults of pushforward, zuko and flowjax, and the documented examples of nflows and normflows, which have no defaults. Our flows are
trained by ``pf.fit``. The peers are trained by a loop with Adam at 1e-3, batches of 512, a cosine schedule over the time, gradients
clipped at a norm of 5, and the weights of the best of about 20 validations. All time after the
imports and the making of the model counts, with validation and with the compilation of flowjax. A library's column has the better of its two flows on validation rows.

Images are dequantized by uniform noise from a fixed seed and scaled by one mean and one deviation, as vectors.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import pushforward as pf
from benchmarks.common.results import Record, Results, footer, markdown, mean_and_spread, spread
from benchmarks.quality.data import Split, add_data_option, load
from pushforward.training import run as training_run

SETS = ("protein", "kin40k", "elevators", "parkinsons", "digits", "fashion-mnist")
LIBRARIES = ("pushforward", "zuko", "nflows", "normflows", "flowjax")
FLOWS = ("spline", "affine")
BATCH, LEARNING_RATE, CLIP, CHECKS, ROWS = 512, 1e-3, 5.0, 20, 2048

Found = dict[str, Any]


def ours(kind: str, split: Split, seconds: float, seed: int) -> Found:
    model = pf.models.NSF(split.features) if kind == "spline" else pf.models.MAF(split.features)
    done = pf.fit(
        model, split.train, validation=split.validation, max_time=seconds, patience=None, seed=seed, progress="silent"
    )

    def mean(rows: Tensor) -> float:
        return mean_log_prob(model.log_prob, rows)

    return {"validation": mean(split.validation), "test": mean(split.test), "steps": done.steps}


def zuko_flow(kind: str, features: int) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    import zuko

    flow = zuko.flows.NSF(features) if kind == "spline" else zuko.flows.MAF(features)
    return flow, lambda x: flow().log_prob(x)


def nflows_flow(kind: str, features: int) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """Sizes of the experiments of its paper on tables: 10 layers, 2 blocks, width 128."""
    from nflows import transforms
    from nflows.distributions.normal import StandardNormal
    from nflows.flows import Flow, MaskedAutoregressiveFlow

    if kind == "affine":
        flow: Any = MaskedAutoregressiveFlow(features, 128, num_layers=5, num_blocks_per_layer=2)
        return flow, flow.log_prob
    layers: list[nn.Module] = []
    for _ in range(10):
        layers += [transforms.RandomPermutation(features), transforms.LULinear(features, identity_init=True)]
        layers.append(
            transforms.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
                features, 128, num_bins=8, tails="linear", tail_bound=3.0, num_blocks=2
            )
        )
    flow = Flow(transforms.CompositeTransform(layers), StandardNormal([features]))
    return flow, flow.log_prob


def normflows_flow(kind: str, features: int) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """Sizes of its examples of a neural spline flow (16 layers of width 128) and of a masked autoregressive flow.

    Density estimation is the fast direction.
    """
    import normflows as nf

    layers: list[nn.Module] = []
    for _ in range(16 if kind == "spline" else 5):
        if kind == "spline":
            layers.append(nf.flows.AutoregressiveRationalQuadraticSpline(features, 2, 128))
        else:
            layers.append(nf.flows.Reverse(nf.flows.MaskedAffineAutoregressive(features, 128, num_blocks=2)))
        layers.append(nf.flows.LULinearPermute(features))
    flow = nf.NormalizingFlow(nf.distributions.DiagGaussian(features, trainable=False), layers)
    return flow, flow.log_prob


TORCH = {"zuko": zuko_flow, "nflows": nflows_flow, "normflows": normflows_flow}


def mean_log_prob(log_prob: Callable[[Tensor], Tensor], rows: Tensor) -> float:
    with torch.no_grad():
        return torch.cat([log_prob(part) for part in rows.split(ROWS)]).double().mean().item()


class Clock:
    """The used fraction of a budget of CPU time, and whether the next validation is due."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.start, self.next = seconds, time.process_time(), 1

    @property
    def part(self) -> float:
        return min(1.0, (time.process_time() - self.start) / self.seconds)

    def due(self) -> bool:
        if self.part * CHECKS < self.next:
            return False
        self.next = math.floor(self.part * CHECKS) + 1
        return True


def torch_peer(library: str, kind: str, split: Split, seconds: float, seed: int) -> Found:
    flow, log_prob = TORCH[library](kind, split.features)
    clock = Clock(seconds)  # as for ours, imports and the making of the model do not count
    optimizer = torch.optim.Adam(flow.parameters(), lr=LEARNING_RATE)
    draw = torch.Generator().manual_seed(seed)
    best, weights, steps = -math.inf, flow.state_dict(), 0
    while clock.part < 1:
        flow.train()
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * clock.part))
        rows = split.train[torch.randint(len(split.train), (BATCH,), generator=draw)]
        optimizer.zero_grad()
        (-log_prob(rows).mean()).backward()
        nn.utils.clip_grad_norm_(flow.parameters(), CLIP)
        optimizer.step()
        steps += 1
        if clock.due() or clock.part >= 1:
            flow.eval()
            reading = mean_log_prob(log_prob, split.validation)
            if reading > best:
                best, weights = reading, {name: value.clone() for name, value in flow.state_dict().items()}
    flow.load_state_dict(weights)
    flow.eval()
    return {"validation": best, "test": mean_log_prob(log_prob, split.test), "steps": steps}


def flowjax_peer(kind: str, split: Split, seconds: float, seed: int) -> Found:
    """The library's default sizes, with every call compiled."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax
    import paramax
    from flowjax.bijections import RationalQuadraticSpline
    from flowjax.distributions import Normal
    from flowjax.flows import masked_autoregressive_flow

    model = masked_autoregressive_flow(
        jax.random.key(seed),
        base_dist=paramax.non_trainable(Normal(jnp.zeros(split.features))),
        transformer=RationalQuadraticSpline(knots=8, interval=4.0) if kind == "spline" else None,
    )
    weights, rest = eqx.partition(
        model, eqx.is_inexact_array, is_leaf=lambda leaf: isinstance(leaf, paramax.NonTrainable)
    )
    clock = Clock(seconds)

    def log_prob(weights: Any, x: Any) -> Any:
        return eqx.combine(weights, rest).log_prob(x)

    def rate(part: Any) -> Any:
        return LEARNING_RATE * 0.5 * (1 + jnp.cos(jnp.pi * part))

    adam = optax.chain(optax.clip_by_global_norm(CLIP), optax.scale_by_adam())
    state = adam.init(weights)

    @jax.jit
    def update(weights: Any, state: Any, x: Any, part: Any) -> Any:
        gradient = jax.grad(lambda w: -log_prob(w, x).mean())(weights)
        change, state = adam.update(gradient, state, weights)
        change = jax.tree.map(lambda c: -rate(part) * c, change)
        return eqx.apply_updates(weights, change), state

    score = jax.jit(log_prob)

    def mean(weights: Any, rows: Tensor) -> float:
        # All parts have one shape, so that the function is compiled once; the last part is filled up.
        parts = [np.resize(part.numpy(), (ROWS, split.features)) for part in rows.split(ROWS)]
        values = [np.asarray(score(weights, part)) for part in parts]
        return float(np.concatenate(values)[: len(rows)].astype(np.float64).mean())

    train, draw = split.train.numpy(), np.random.default_rng(seed)
    best, kept, steps = -math.inf, weights, 0
    while clock.part < 1:
        rows = train[draw.integers(len(train), size=BATCH)]
        weights, state = jax.block_until_ready(update(weights, state, rows, clock.part))
        steps += 1
        if clock.due() or clock.part >= 1:
            reading = mean(weights, split.validation)
            if reading > best:
                best, kept = reading, weights
    return {"validation": best, "test": mean(kept, split.test), "steps": steps}


def train(library: str, kind: str, split: Split, seconds: float, seed: int) -> Found:
    torch.manual_seed(seed)
    if library == "pushforward":
        return ours(kind, split, seconds, seed)
    if library == "flowjax":
        return flowjax_peer(kind, split, seconds, seed)
    return torch_peer(library, kind, split, seconds, seed)


def run(options: argparse.Namespace, results: Results) -> None:
    for name, seed in itertools.product(options.sets, range(options.seeds)):
        split = None
        for library, kind in itertools.product(options.libraries, FLOWS):
            key = {"set": name, "library": library, "flow": kind, "seed": seed, "seconds": options.seconds}
            if results.where(**key):
                continue
            split = split or load(name, seed, options.data)
            try:
                found = train(library, kind, split, options.seconds, seed)
            except (
                ArithmeticError,
                AssertionError,
                RuntimeError,
                ValueError,
            ) as error:  # the failure of a peer is a result
                if library == "pushforward":
                    raise
                found = {"failed": f"{type(error).__name__}: {error}"[:200]}
            results.add(key | found)


def better(records: list[Record]) -> Record | None:
    """The record with the higher validation result, of those that trained."""
    finite = [record for record in records if math.isfinite(record.get("validation", -math.inf))]
    return max(finite, key=lambda record: record["validation"]) if finite else None


def table(options: argparse.Namespace, results: Results) -> str:
    rows, used = [], []
    for name in options.sets:
        cells, means = [], []
        for library in options.libraries:
            records = results.where(set=name, library=library, seconds=options.seconds)
            used += records
            best = [
                found for seed in range(options.seeds) if (found := better([r for r in records if r["seed"] == seed]))
            ]
            means.append(sum(r["test"] for r in best) / len(best) if best else -math.inf)
            kinds = "/".join(dict.fromkeys(r["flow"] for r in best))
            tests = [r["test"] for r in best]
            cells.append(
                f"{spread(tests, 2) if options.seeds == 1 else mean_and_spread(tests)} ({kinds})" if best else "–"
            )
        if any(cell != "–" for cell in cells):
            first = max(means)
            rows.append([name, *(f"**{c}**" if m == first else c for c, m in zip(cells, means, strict=True))])
    title = f"Test log-likelihood in nats of scaled rows after {options.seconds:g} s of CPU time, one thread.\n"
    return "\n".join(
        [title, markdown(["set", *options.libraries], rows), footer("python -m benchmarks.quality.ready_made", used)]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Ready-made flows of each library in equal CPU time.")
    add_data_option(parser)
    parser.add_argument("--sets", nargs="+", default=list(SETS), metavar="SET")
    parser.add_argument("--libraries", nargs="+", default=list(LIBRARIES), choices=LIBRARIES)
    parser.add_argument("--seconds", type=float, default=60.0, help="CPU time of each flow")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/quality-ready-made.jsonl"))
    parser.add_argument("--table", action="store_true", help="print the table of existing results and run nothing")
    options = parser.parse_args()
    results = Results(options.out)
    if options.table:
        print(table(options, results))
        return
    torch.set_num_threads(1)
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    training_run.monotonic = time.process_time  # the clock of pf.fit's max_time
    run(options, results)
    print(table(options, results))


if __name__ == "__main__":
    main()
