"""Invertible n x n convolutions: causal, emerging, periodic (Hoogeboom et al. 2019; Truong et al. 2019 and others)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from papers.experiment import Experiment, bits_per_dim, clearly_below, size, spread, width_for
from papers.flows.against_time import draw, pictures, report_ahead, report_peers, run_contenders, sample_distance
from papers.flows.glow_setting import PEERS, glow, glow_peers, glow_sizes
from papers.flows.timed_training import Contender
from papers.reproduction import reproduction
from pushforward.distributions import Normal
from pushforward.models import ConvGlow, Flow, Glow, Model
from pushforward.transforms import ActNorm, Chain, InvertibleConv1x1, InvertibleConv2d, Transform

__all__ = ["gaussian_field", "run"]

SIDE = 8


@reproduction(
    "nxn",
    "Emerging Convolutions for Generative Normalizing Flows (Hoogeboom, van den Berg, Welling 2019, arXiv 1901.11137), and "
    "invertible n x n convolutions after it",
    data=("fashion-mnist", "cifar10"),  # the second: long and full
    full="1 to 2 days on one GPU for each kind on CIFAR-10 (estimate)",
)
def run(experiment: Experiment) -> None:
    """Compare linear flows on a Gaussian field of known entropy, and n x n with 1 x 1 convolutions in Glow of equal size.

    A long or full run also compares the convolutions at equal CPU time, beside other libraries.
    """
    _field(experiment)
    _images(experiment)
    if experiment.budget != "quick":
        _against_time(experiment)


def _against_time(experiment: Experiment) -> None:
    """Compare 3 x 3 and 1 x 1 convolutions at equal parameters and CPU time; no other library has n x n convolutions."""
    shape = pictures(experiment).shape
    sizes: dict[str, Any] = glow_sizes(experiment)
    small = glow(experiment, shape, "1x1")

    def conv(mode: str) -> Contender:
        def build(width: int) -> Model:
            own: dict[str, Any] = sizes | {"hidden": (width, width)}
            return ConvGlow(shape, mode=mode, alpha=None, **own)

        width = width_for(build, size(small.make()), (1, sizes["hidden"][0]))
        return Contender(f"Glow 3x3 {mode}", lambda: build(width), judge=sample_distance)

    found = run_contenders(experiment, [small, conv("causal"), conv("emerging"), *glow_peers(experiment, shape)])
    papers = {"causal": "", "emerging": "3.34 against 3.36 bits/dim on CIFAR-10, as a later paper prints them"}
    for mode, paper in papers.items():
        report_ahead(
            experiment, f"n x n convolutions beat 1 x 1 ones in Glow at equal parameters and CPU time, on {found.images.name}: {mode}",
            found, f"Glow 3x3 {mode}", [small.name], paper=paper,
        )  # fmt: skip
    report_peers(
        experiment, "Glow with 3 x 3 convolutions is not behind Glow of other libraries at equal CPU time", found,
        "Glow 3x3 causal", PEERS, note="the others have 1 x 1 convolutions",
    )  # fmt: skip
    draw(experiment, found)


def gaussian_field(count: int, seed: int, mass: float = 0.05) -> tuple[Tensor, Tensor, float]:
    """A Gaussian free field on a grid: rows ``(count, 1, 8, 8)``, their log-densities, and the entropy in nats.

    Its precision is (4 + mass) I minus the adjacency of neighbors, so neighboring pixels are strongly correlated.
    """
    sites = SIDE * SIDE
    precision = torch.zeros(sites, sites, dtype=torch.float64)
    for site in range(sites):
        precision[site, site] = 4 + mass
        if site % SIDE:
            precision[site, site - 1] = precision[site - 1, site] = -1
        if site >= SIDE:
            precision[site, site - SIDE] = precision[site - SIDE, site] = -1
    factor = torch.linalg.cholesky(precision)
    log_det = 2 * factor.diagonal().log().sum().item()
    white = torch.randn(count, sites, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    rows = torch.linalg.solve_triangular(factor.mT, white.mT, upper=True).mT  # covariance (L L')^-1
    constant = sites * math.log(2 * math.pi)
    log_density = -0.5 * (white.square().sum(1) + constant - log_det)
    return rows.reshape(-1, 1, SIDE, SIDE).float(), log_density, 0.5 * (sites + constant - log_det)


def _field(experiment: Experiment) -> None:
    train, _, entropy = gaussian_field(experiment.choose(smoke=200, quick=20_000, full=100_000), seed=0)
    test, truth, _ = gaussian_field(experiment.choose(smoke=200, quick=20_000, full=100_000), seed=1)
    held_out, _, _ = gaussian_field(1000, seed=2)
    shape = (1, SIDE, SIDE)
    chains: dict[str, Callable[[], list[Transform]]] = {
        "1x1": lambda: [InvertibleConv1x1(shape)],
        "causal": lambda: [InvertibleConv2d(shape, "causal")],
        "emerging": lambda: [InvertibleConv2d(shape, "emerging")],
        "periodic": lambda: [InvertibleConv2d(shape, "periodic")],
    }
    gaps: dict[str, float] = {}
    for kind, parts in chains.items():
        model, _ = experiment.train(
            f"field {kind}", lambda parts=parts: Flow(Chain(ActNorm(shape), *parts()), Normal(shape)), train, held_out,
            max_steps=experiment.choose(smoke=3, quick=1500, full=10_000), learning_rate=1e-2,
        )  # fmt: skip
        with torch.no_grad():
            gaps[kind] = (truth - torch.cat([model.log_prob(part) for part in test.split(5000)]).double()).mean().item()
    said = ", ".join(f"{kind} {gap:.2f}" for kind, gap in gaps.items())
    note = f"KL to the truth in nats of {SIDE * SIDE} pixels, entropy {entropy:.1f}; linear flows only; criterion: causal below a quarter of 1x1"
    experiment.report(
        "a 1 x 1 convolution cannot model correlation of neighbors, one n x n convolution closes most of the gap",
        ours=said,
        confirmed=gaps["causal"] < 0.25 * gaps["1x1"],
        seeds=1,
        note=note,
    )
    experiment.report(
        "two convolutions in opposite orders close the gap",
        ours=f"{gaps['emerging']:.2f} nats of {gaps['1x1']:.2f} remain",
        confirmed=gaps["emerging"] < 0.05 * gaps["1x1"],
        seeds=1,
        note="criterion: less than a twentieth",
    )


def _images(experiment: Experiment) -> None:
    name = experiment.choose(smoke="fashion-mnist", quick="fashion-mnist", full="cifar10")
    train, held_out, test = experiment.image_parts(
        name,
        rows=experiment.choose(smoke=150, quick=20_000, full=50_000),
        held_out=experiment.choose(smoke=50, quick=500, full=1000),
        test=experiment.choose(smoke=50, quick=1000, full=10_000),
    )
    shape = tuple(test.shape[1:])
    scales, steps = experiment.choose(smoke=(1, 1), quick=(2, 3), full=(3, 32))
    width = experiment.choose(smoke=8, quick=32, full=512)

    def glow(width: int) -> Model:
        return Glow(shape, scales=scales, layers=steps, hidden=(width, width))

    def conv(width: int) -> Model:
        return ConvGlow(shape, mode="causal", scales=scales, layers=steps, hidden=(width, width))

    narrower = width_for(conv, size(glow(width)), (4, width))
    kinds: dict[str, Callable[[], Model]] = {"1x1": lambda: glow(width), "3x3": lambda: conv(narrower)}
    options = {"max_steps": experiment.choose(smoke=2, quick=400, full=500_000), "batch_size": 64, "patience": None}
    bits: dict[str, list[float]] = {kind: [] for kind in kinds}
    counts: dict[str, float] = {}
    for seed in experiment.repeats:
        for kind, build in kinds.items():
            flow, facts = experiment.train(f"{kind} {seed}", build, train, held_out, seed=seed, **options)
            counts[kind] = facts["parameters"]
            bits[kind].append(experiment.measure(f"{kind} {seed} bits", lambda flow=flow: bits_per_dim(flow, test)))
    experiment.report(
        "n x n convolutions beat 1 x 1 ones in Glow at equal parameters",
        ours=f"{spread(bits['3x3'])} against {spread(bits['1x1'])} bits/dim on {name}",
        confirmed=clearly_below(bits["3x3"], bits["1x1"]),
        seeds=len(bits["3x3"]),
        note=f"{counts['3x3']:,} and {counts['1x1']:,} parameters, {options['max_steps']:,} steps of 64",
    )
