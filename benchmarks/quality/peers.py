"""The same flows in pushforward, zuko and nflows, trained by the same loop on the same batches: test log-likelihoods.

    python -m benchmarks.quality.peers --data DATA                     # runs missing cases, then prints the table
    python -m benchmarks.quality.peers --data DATA --table             # only prints the table

Equal in all three are data and splits, batches, Adam with a cosine schedule, gradient clipping, the weights of the best
validation result, the number of layers, widths and activations, the coupling masks, the order of autoregressive
layers, the permutations and LU layers between splines, bins and tail bound, and so, nearly, the number of parameters.

Differences that are built into a library are:

- bounds on the scale of affine layers: pushforward exp(a / (1 + |a| / 3)); zuko the same with log 1000 in place of 3; nflows
  softplus(a) + 0.001 in MAF and sigmoid(a + 2) + 0.001, so at most 1.001, in couplings: its RealNVP can only contract;
- bounds of splines: pushforward bins of at least 1 % of the interval and slopes in [0.01, 100]; nflows 0.1 % and 0.001;
  zuko softly clipped parameters and slopes in [0.001, 1000];
- initial weights: pushforward starts near the identity, nflows has small residual branches, zuko has torch's default;
- inputs of networks: pushforward clamps them to [-10, 10];
- zuko's LU layer has no bias; its residual masked network has no activation before a block; its couplings have no
  residual network, so one is built here from its layers.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from scipy.stats import ttest_1samp
from torch import Tensor, nn

import pushforward as pf
from benchmarks.common.results import Results, footer, markdown, mean_and_spread
from benchmarks.quality.data import SETS, Split, add_data_option, load

MODELS = ("RealNVP", "MAF", "NSF (C)", "NSF (AR)")
WIDTH, COUPLINGS, MAF_LAYERS, SPLINE_LAYERS, BLOCKS, BINS, BOUND = 128, 8, 5, 6, 2, 8, 4.0
BATCH, LEARNING_RATE, CLIP, CHECKS, ROWS = 512, 1e-3, 5.0, 20, 4096

LogProb = Callable[[Tensor], Tensor]


def pushforward_flow(model: str, features: int) -> tuple[nn.Module, LogProb]:
    flow: pf.models.Model
    match model:
        case "RealNVP":
            flow = pf.models.RealNVP(features, layers=COUPLINGS, hidden=(WIDTH, WIDTH), standardize=False)
        case "MAF":
            flow = pf.models.MAF(features, layers=MAF_LAYERS, hidden=(WIDTH, WIDTH), standardize=False)
        case _:
            kind = "coupling" if model == "NSF (C)" else "autoregressive"
            flow = pf.models.NSF(
                features, layer=kind, layers=SPLINE_LAYERS, bins=BINS, tail_bound=BOUND, hidden=(WIDTH,) * BLOCKS, standardize=False,
            )  # fmt: skip
    return flow, flow.log_prob


def zuko_flow(model: str, features: int) -> tuple[nn.Module, LogProb]:
    import zuko
    from zuko.flows.autoregressive import MaskedAutoregressiveTransform
    from zuko.flows.coupling import GeneralCouplingTransform
    from zuko.lazy import Flow, UnconditionalDistribution, UnconditionalTransform
    from zuko.transforms import LULinearTransform, MonotonicRQSTransform, PermutationTransform

    if model == "RealNVP":
        flow = zuko.flows.RealNVP(features, transforms=COUPLINGS, hidden_features=(WIDTH, WIDTH))
    elif model == "MAF":
        flow = zuko.flows.MAF(features, transforms=MAF_LAYERS, hidden_features=(WIDTH, WIDTH))
    else:
        options: dict[str, Any] = {
            "univariate": partial(MonotonicRQSTransform, bound=BOUND),
            "shapes": [(BINS,), (BINS,), (BINS - 1,)],
        }
        mask: Any = torch.arange(features) % 2 == 0
        layers = []
        for order in spline_orders(features):
            layers.append(UnconditionalTransform(PermutationTransform, order, buffer=True))
            layers.append(UnconditionalTransform(LULinearTransform, torch.eye(features)))
            if model == "NSF (AR)":
                hidden = (WIDTH,) * BLOCKS
                layers.append(MaskedAutoregressiveTransform(features, hidden_features=hidden, residual=True, **options))
            else:
                coupling = GeneralCouplingTransform(features, mask=mask, **options)
                kept, moved = (features + 1) // 2, features // 2
                coupling.add_module("hyper", zuko_residual_network(kept, moved * (3 * BINS - 1)))
                layers.append(coupling)
        layers.append(UnconditionalTransform(LULinearTransform, torch.eye(features)))
        normal = zuko.distributions.DiagNormal
        flow = Flow(layers, UnconditionalDistribution(normal, torch.zeros(features), torch.ones(features), buffer=True))
    return flow, lambda x: flow().log_prob(x)


def zuko_residual_network(inputs: int, outputs: int) -> nn.Module:
    from zuko.nn import Linear, Residual

    def block() -> nn.Module:
        return Residual(nn.ReLU(), Linear(WIDTH, WIDTH), nn.ReLU(), Linear(WIDTH, WIDTH))

    return nn.Sequential(Linear(inputs, WIDTH), *(block() for _ in range(BLOCKS)), Linear(WIDTH, outputs))


def nflows_flow(model: str, features: int) -> tuple[nn.Module, LogProb]:
    from nflows import transforms
    from nflows.distributions.normal import StandardNormal
    from nflows.flows import Flow
    from nflows.nn.nets import ResidualNet
    from nflows.transforms.permutations import Permutation

    class PlainNet(nn.Sequential):
        """nflows' own MLP does not take the context that its couplings pass on."""

        def __init__(self, inputs: int, outputs: int) -> None:
            hidden = [nn.Linear(inputs, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU()]
            super().__init__(*hidden, nn.Linear(WIDTH, outputs))

        def forward(self, input: Tensor, context: Tensor | None = None) -> Tensor:
            return super().forward(input)

    def residual_net(inputs: int, outputs: int) -> nn.Module:
        return ResidualNet(inputs, outputs, hidden_features=WIDTH, num_blocks=BLOCKS)

    position = torch.arange(features)
    splines = {"num_bins": BINS, "tails": "linear", "tail_bound": BOUND}
    layers: list[nn.Module] = []
    if model == "RealNVP":
        layers = [transforms.AffineCouplingTransform((position + k + 1) % 2, PlainNet) for k in range(COUPLINGS)]
    elif model == "MAF":
        for k in range(MAF_LAYERS):
            layers += [transforms.ReversePermutation(features)] if k else []
            layers.append(
                transforms.MaskedAffineAutoregressiveTransform(features, WIDTH, num_blocks=1, use_residual_blocks=False)
            )
    else:
        for order in spline_orders(features):
            layers += [Permutation(order), transforms.LULinear(features, identity_init=True)]
            if model == "NSF (AR)":
                layer = transforms.MaskedPiecewiseRationalQuadraticAutoregressiveTransform
                layers.append(layer(features, WIDTH, num_blocks=BLOCKS, **splines))
            else:
                layer = transforms.PiecewiseRationalQuadraticCouplingTransform
                layers.append(layer(position % 2, residual_net, **splines))
        layers.append(transforms.LULinear(features, identity_init=True))
    flow = Flow(transforms.CompositeTransform(layers), StandardNormal([features]))
    return flow, flow.log_prob


LIBRARIES = {"pushforward": pushforward_flow, "zuko": zuko_flow, "nflows": nflows_flow}


def spline_orders(features: int) -> list[Tensor]:
    """The fixed permutations before the spline layers, which are those of ``pf.models.NSF``."""
    return [pf.transforms.Permutation(features, seed=k).permutation for k in range(SPLINE_LAYERS)]


def mean_log_prob(log_prob: LogProb, rows: Tensor) -> float:
    with torch.no_grad():
        return torch.cat([log_prob(part) for part in rows.split(ROWS)]).double().mean().item()


def train(flow: nn.Module, log_prob: LogProb, split: Split, steps: int, seed: int) -> tuple[float, float]:
    """Train, keep the weights with the best validation result, and return validation and test log-likelihood, nats."""
    optimizer = torch.optim.Adam(flow.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    draw = torch.Generator().manual_seed(seed)
    best, weights = -math.inf, flow.state_dict()
    for step in range(1, steps + 1):
        flow.train()
        rows = split.train[torch.randint(len(split.train), (BATCH,), generator=draw)]
        optimizer.zero_grad()
        (-log_prob(rows).mean()).backward()
        nn.utils.clip_grad_norm_(flow.parameters(), CLIP)
        optimizer.step()
        schedule.step()
        if step % max(1, steps // CHECKS) == 0 or step == steps:
            flow.eval()
            reading = mean_log_prob(log_prob, split.validation)
            if reading > best:
                best, weights = reading, {name: value.clone() for name, value in flow.state_dict().items()}
    flow.load_state_dict(weights)
    return best + split.offset, mean_log_prob(log_prob, split.test) + split.offset


def run(options: argparse.Namespace, results: Results) -> None:
    runs = itertools.product(
        options.sets, range(options.seeds), options.models, range(options.starts), options.libraries
    )
    loaded: tuple[str, int] | None = None
    split = None
    for name, seed, model, start, library in runs:
        key = {"set": name, "model": model, "library": library, "seed": seed, "steps": options.steps}
        if len([record for record in results.where(**key) if record.get("start", 0) == start]):
            continue
        if split is None or loaded != (name, seed):
            split, loaded = load(name, seed, options.data), (name, seed)
        torch.manual_seed(seed + 1000 * start)
        flow, log_prob = LIBRARIES[library](model, split.features)
        began = time.perf_counter()
        validation, test = train(flow, log_prob, split, options.steps, seed)
        found = {
            "start": start,
            "test": test,
            "validation": validation,
            "parameters": sum(weight.numel() for weight in flow.parameters()),
            "seconds": round(time.perf_counter() - began, 1),
        }
        results.add(key | found)


def table(options: argparse.Namespace, results: Results) -> str:
    """One row for each set and model: test log-likelihood of each library, and differences to ours by seed."""
    peers = [library for library in options.libraries if library != "pushforward"]
    rows, used = [], []
    for name in options.sets:
        for model in options.models:
            found = {
                library: results.where(set=name, model=model, library=library, steps=options.steps)
                for library in options.libraries
            }
            if not any(found.values()):
                continue
            used += [record for records in found.values() for record in records]
            # Each set of initial weights is a separate result, paired with the same number of the other libraries.
            by_seed = {
                library: {(r["seed"], r.get("start", 0)): r["test"] for r in records}
                for library, records in found.items()
            }
            sizes = " / ".join(f"{records[0]['parameters']:,}" if records else "–" for records in found.values())
            values = [mean_and_spread(list(by_seed[library].values())) for library in options.libraries]
            gains = [difference(by_seed.get("pushforward", {}), by_seed[library]) for library in peers]
            rows.append([name, model, sizes, *values, *gains])
    head = ["set", "model", "parameters", *options.libraries, *(f"ours − {library}" for library in peers)]
    title = (
        f"Test log-likelihood in nats after {options.steps:,} steps of {BATCH} rows, mean ± standard deviation over "
        "seeds. Differences are taken by seed; *level* means that a two-sided paired t-test at 5 % finds no difference.\n"
    )
    return "\n".join([title, markdown(head, rows), footer("python -m benchmarks.quality.peers", used)])


def difference(ours: dict[Any, float], theirs: dict[Any, float]) -> str:
    """Mean and deviation of the paired differences, and a two-sided paired t-test at 5 %: ahead, level or behind."""
    gains = [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]
    if len(gains) < 2:
        return mean_and_spread(gains)
    test = ttest_1samp(gains, 0)
    reading = "ahead" if test.statistic > 0 else "behind"
    reading = reading if test.pvalue < 0.05 else "level"
    return f"{mean_and_spread(gains)} {reading}"


def main() -> None:
    parser = argparse.ArgumentParser(description="The same flows in pushforward, zuko and nflows.")
    add_data_option(parser)
    parser.add_argument("--sets", nargs="+", default=list(SETS), metavar="SET")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--libraries", nargs="+", default=list(LIBRARIES), choices=LIBRARIES)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=3, help="number of test splits, each with its own batches")
    parser.add_argument("--starts", type=int, default=1, help="number of initial weights for each seed")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=Path("runs/quality-peers.jsonl"))
    parser.add_argument("--table", action="store_true", help="print the table of existing results and run nothing")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = Results(options.out)
    if not options.table:
        run(options, results)
    print(table(options, results))


if __name__ == "__main__":
    main()
