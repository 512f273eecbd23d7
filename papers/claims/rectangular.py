"""Rectangular flows (Caterini et al. 2021): densities on learned curves and surfaces, against known ones."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from statistics import fmean, stdev

import torch
from torch import Tensor

from papers.experiment import PAPER_TRAINING, Experiment, spread
from papers.reproduction import reproduction
from papers.surfaces.manifolds import ManifoldDistribution, circle, compare, rotated, sphere, swiss_roll
from papers.surfaces.rectangular_images import SETS, study_images
from papers.surfaces.rectangular_methods import Methods, Outcome, how_long, steps_needed
from papers.surfaces.rectangular_tables import TABLES, study_tables
from pushforward.models import RealNVP, RectangularFlow
from pushforward.training import fit

__all__ = ["run"]

Found = dict[str, list[dict[str, float]]]
"""For each method the figures of each seed."""


@reproduction(
    "rectangular",
    "Rectangular Flows for Manifold Learning (Caterini, Loaiza-Ganem, Pleiss, Cunningham 2021, arXiv 2106.01413)",
    data=(*(f"uci/{name}" for name in TABLES), *SETS),
    full="eight hours on 16 cores (estimate)",
)
def run(experiment: Experiment) -> None:
    """Compare eight methods of learning a manifold, an ambient flow that overfits a circle, UCI tables, images, and costs of gradients."""
    surfaces = {
        target.name: _surface(experiment, target)
        for target in (circle(), sphere(), swiss_roll(), rotated(swiss_roll(), 20))
    }
    _bars(experiment, surfaces)
    _overfitting(experiment, surfaces["circle"])
    study_tables(experiment)
    if experiment.budget != "quick":
        study_images(experiment)
    _cost(experiment)


def _sizes(experiment: Experiment) -> dict[str, int]:
    return {
        "test": experiment.choose(smoke=50, quick=4000, full=20_000),
        "count": experiment.choose(smoke=200, quick=50_000, full=200_000),
    }


def _cells(target: ManifoldDistribution) -> int:
    return 64 if target.dim == 1 else 20


def _overfitting(experiment: Experiment, on_curve: Found) -> None:
    """Follow one ambient flow in training: its likelihood has no upper bound and says nothing about the distribution."""
    stages = experiment.choose(
        smoke=(1, 2), quick=(250, 500, 1000, 2000, 4000), full=(1000, 3000, 10_000, 30_000, 100_000)
    )
    rows = circle().sample(experiment.choose(smoke=100, quick=10_000, full=50_000), 0)
    runs = [
        experiment.measure(f"ambient {seed}", partial(_follow, experiment, rows, stages, seed))
        for seed in experiment.few(2, long=5)
    ]
    _draw_overfitting(experiment, stages, runs, on_curve)
    floor = runs[0][0]["floor"]
    rises = [
        later["nats"] > before["nats"] and later["tv"] > before["tv"] + floor
        for found in runs
        for before, later in itertools.pairwise(found)
    ]
    experiment.report(
        "an ambient flow's likelihood rises without limit on a circle, and its distribution can get worse meanwhile",
        ours="; ".join(
            "nats " + ", ".join(f"{entry['nats']:.2f}" for entry in found)
            + " and total variation " + ", ".join(f"{entry['tv']:.3f}" for entry in found) for found in runs
        ) + f" after {', '.join(f'{stage:,}' for stage in stages)} steps",
        confirmed=any(rises) and all(found[-1]["nats"] > found[0]["nats"] + 0.5 for found in runs),
        seeds=len(runs),
        note=f"noise floor of the total variation {floor:.3f}; criterion: it ends 0.5 nats higher in every run, and in some interval "
        "the likelihood rises and the total variation rises by more than the floor",
    )  # fmt: skip


def _follow(experiment: Experiment, rows: Tensor, stages: tuple[int, ...], seed: int) -> list[dict[str, float]]:
    """Train one ambient flow on the circle, and compare it with the truth after each stage."""
    torch.manual_seed(seed)
    model = RealNVP(2, layers=8, hidden=(64, 64))
    found, done = [], 0
    for stage in stages:
        fit(
            model,
            rows,
            validation=None,
            max_steps=stage - done,
            schedule=None,
            config=PAPER_TRAINING,
            seed=seed + stage,
        )
        done = stage
        found.append(compare(circle(), model, cells=_cells(circle()), **_sizes(experiment)))
    return found


def _draw_overfitting(
    experiment: Experiment, stages: tuple[int, ...], runs: list[list[dict[str, float]]], on_curve: Found
) -> None:
    figure = experiment.figure(7.5, 2.6)
    left, right = figure.subplots(1, 2)
    for seed, found in enumerate(runs):
        left.plot(stages, [entry["nats"] for entry in found], ".-", label=f"seed {seed}")
        right.plot(stages, [entry["tv"] for entry in found], ".-")
    left.axhline(runs[0][0]["truth"], color="gray", ls=":", label="truth, by arc length")
    left.legend(fontsize=6)
    left.set(xscale="log", xlabel="steps", title="log-likelihood in the plane, nats")
    right.axhline(runs[0][0]["floor"], color="gray", ls=":", label="as many true samples")
    for method, style in (("exact", "-."), ("two-step", "--")):
        mean = fmean(entry["tv"] for entry in on_curve[method])
        right.axhline(mean, color="black", ls=style, lw=0.8, label=f"on the curve: {method}, mean")
    right.legend(fontsize=6, loc="lower left")
    right.set(xscale="log", xlabel="steps", ylim=(0, None), title="total variation of the angles")
    for axes in (left, right):
        axes.set_xticks(stages, [f"{stage:,}" for stage in stages], fontsize=7)
        axes.minorticks_off()
    experiment.picture("overfitting", figure)


def _surface(experiment: Experiment, target: ManifoldDistribution) -> Found:
    """Total variation, density and distance of every method, after an equal number of steps or until level."""
    methods = Methods(experiment, target).all()
    found: Found = {method: [] for method in methods}

    def judge(train: Callable[[int], Outcome], seed: int) -> dict[str, float]:
        model, facts = train(seed)
        return {**compare(target, model, cells=_cells(target), seed=seed, **_sizes(experiment)), **facts}

    for seed in experiment.few(1, long=5):
        for method, train in methods.items():
            key = f"{target.name} {method} {seed} compared"
            found[method].append(experiment.measure(key, partial(judge, train, seed)))
    mass = ""
    if target.ambient < 4:
        densities = experiment.measure(f"{target.name} densities", partial(_densities, experiment, target, methods))
        _picture(experiment, target, densities)
        mass = _masses(experiment, target, densities)
    _report_surface(experiment, target, found, mass + how_long(experiment) + steps_needed(found))
    return found


def _report_surface(experiment: Experiment, target: ManifoldDistribution, found: Found, trained: str) -> None:
    """Report the methods on one surface; ``trained`` says how long each training was."""

    def column(method: str, what: str) -> list[float]:
        return [entry[what] for entry in found[method]]

    truth, floor = fmean(column("exact", "truth")), column("exact", "floor")[0]
    experiment.report(
        f"{target.name}: a rectangular flow learns the distribution on the surface",
        ours="; ".join(
            f"{method}: total variation {spread(column(method, 'tv'))}, median distance {fmean(column(method, 'distance')):.1e}, "
            f"{spread(column(method, 'nats'), 2)} nats"
            + ("" if method == "ambient" else f", squared residual {fmean(column(method, 'residual')):.1e}") for method in found
        ),
        confirmed=max(column("exact", "tv")) < min(0.1, min(column("ambient", "tv"))),
        seeds=len(found["exact"]),
        note=f"total variation of the nearest points of samples on the surface, and their median distance to it; floor {floor:.3f}; the truth "
        f"on the surface has {truth:.2f} nats, and those of the ambient flow have another measure; seeds: {len(found['exact'])}; "
        f"criterion: in every run below 0.1 and below the best of the ambient flow{trained}",
    )  # fmt: skip
    experiment.report(
        f"{target.name}: trained jointly, surface and density beat the two phases of M-flow",
        ours=f"total variation {spread(column('exact', 'tv'))} against {spread(column('M-flow', 'tv'))}, squared residual "
        f"{fmean(column('exact', 'residual')):.1e} against {fmean(column('M-flow', 'residual')):.1e}",
        confirmed=max(column("exact", "tv")) < min(column("M-flow", "tv")) - floor,
        seeds=len(found["exact"]),
        note="criterion: the worst run of the one is below the best of the other by more than the floor",
    )
    if target.dim > 1:
        probes = [method for method in ("exact", "K = 10", "K = 1") if method in found]
        experiment.report(
            f"{target.name}: the stochastic gradient does as well as the exact one",
            ours=", ".join(f"{method} {spread(column(method, 'tv'))}" for method in probes) + " total variation",
            confirmed=all(
                one < exact + 2 * floor for one, exact in zip(column("K = 1", "tv"), column("exact", "tv"), strict=True)
            ),
            seeds=len(found["exact"]),
            note="criterion: for every seed K = 1 is at most twice the floor above the exact one",
        )


def _bars(experiment: Experiment, surfaces: dict[str, Found]) -> None:
    """Draw the total variations, and report whether two steps avoid the overfitting."""
    figure = experiment.figure(2.3 * len(surfaces), 2.4)
    for axes, (name, found) in zip(figure.subplots(1, len(surfaces), squeeze=False)[0], surfaces.items(), strict=True):
        methods = list(reversed(found))
        values = [[entry["tv"] for entry in found[method]] for method in methods]
        spreads = [stdev(each) if len(each) > 1 else 0.0 for each in values]
        axes.barh(methods, [fmean(each) for each in values], xerr=spreads, height=0.6, error_kw={"lw": 0.8})
        axes.axvline(found["exact"][0]["floor"], color="gray", ls=":")
        axes.set(title=name, xlim=(0, None), xlabel="total variation (dotted: true samples)")
        axes.xaxis.label.set_fontsize(7)
        axes.tick_params(labelsize=7)
    experiment.picture("total-variation", figure)
    experiment.report(
        "two steps, an autoencoder and then a density of its codes, learn the distribution better than a flow of the whole space",
        ours="total variation " + "; ".join(
            f"{name}: {spread([e['tv'] for e in found['two-step']])} against {spread([e['tv'] for e in found['ambient']])}"
            for name, found in surfaces.items()
        ),
        confirmed=all(
            max(e["tv"] for e in found["two-step"]) < min(e["tv"] for e in found["ambient"]) - found["exact"][0]["floor"]
            for found in surfaces.values()
        ),
        seeds=min(len(found["two-step"]) for found in surfaces.values()),
        note="criterion: on every surface, by more than the floor",
    )  # fmt: skip


def _points(experiment: Experiment, target: ManifoldDistribution) -> Tensor:
    """Coordinates of the grid of the picture."""
    lines = experiment.choose(smoke=8, quick=400 if target.dim == 1 else 60, full=1000 if target.dim == 1 else 150)
    return target.grid(lines)[0]


def _densities(
    experiment: Experiment, target: ManifoldDistribution, methods: Mapping[str, Callable[[int], Outcome]]
) -> dict[str, list[float]]:
    """Densities of the first seed's models at points of the true surface, with four digits."""
    x = target.point(_points(experiment, target)).float()
    found: dict[str, list[float]] = {}
    for method, train in methods.items():
        if method != "ambient":
            with torch.no_grad():
                values = train(0)[0].evaluate(x).value.double().exp()
            found[method] = [float(f"{value:.4g}") for value in values.tolist()]
    return found


def _masses(experiment: Experiment, target: ManifoldDistribution, found: Mapping[str, list[float]]) -> str:
    """Integrals of the densities over the true surface: 1 if the learned surface is that one, and each of its points has one code."""
    u = _points(experiment, target)
    area = (target.chart_log_density(u) - target.log_density(target.point(u).float()).double()).exp()
    size = math.prod(high - low for low, high in target.box) / len(u)
    each = {method: (torch.tensor(values).double() * area).sum().item() * size for method, values in found.items()}
    return f"; integral over the surface of the density that the first seed gives to its points: {', '.join(f'{k} {v:.2f}' for k, v in each.items())}"


def _picture(experiment: Experiment, target: ManifoldDistribution, found: Mapping[str, list[float]]) -> None:
    """Density over the chart, of the truth and of each model on the true surface."""
    u = _points(experiment, target)
    density = {"truth": target.log_density(target.point(u).float()).exp()}
    density |= {method: torch.tensor(values) for method, values in found.items()}
    if target.dim == 1:
        figure = experiment.figure(5, 3)
        axes = figure.subplots()
        for method, values in density.items():
            axes.plot(u[:, 0].numpy(), values.numpy(), "k:" if method == "truth" else "-", label=method)
        axes.set(xlabel="angle", ylabel="density by arc length", ylim=(0, 3 * density["truth"].max().item()))
        axes.legend(fontsize=7)
    else:
        figure = experiment.figure(1.8 * len(density), 2.2)
        side = round(len(u) ** 0.5)
        for axes, (method, values) in zip(figure.subplots(1, len(density)), density.items(), strict=True):
            axes.imshow(
                values.reshape(side, side).T.numpy(),
                origin="lower",
                vmin=0,
                vmax=density["truth"].max().item(),
                cmap="magma",
                aspect="auto",
            )
            axes.set(title=method, xticks=[], yticks=[], xlabel="first coordinate")
        figure.axes[0].set_ylabel("second coordinate")
    experiment.picture(target.name.replace(" ", "-").replace("^", ""), figure)


def _cost(experiment: Experiment) -> None:
    """CPU seconds of one training step, exact and with one probe, for d of D = 784 coordinates."""
    wide = experiment.choose(smoke=12, quick=784, full=784)
    dims = experiment.choose(smoke=(2, 8), quick=(2, 8, 32, 128), full=(2, 8, 32, 128))
    rows = torch.randn(experiment.choose(smoke=4, quick=16, full=64), wide, generator=torch.Generator().manual_seed(0))
    found = {
        volume: [
            experiment.measure(f"step {volume} {latent}", partial(_step, experiment, rows, latent, volume))
            for latent in dims
        ]
        for volume in ("exact", "probes")
    }
    slower = [
        latent
        for latent, exact, probes in zip(dims, found["exact"], found["probes"], strict=True)
        if exact[0] > probes[0]
    ]
    experiment.report(
        "the stochastic gradient is cheaper than the exact one where d is large",
        ours=", ".join(
            f"d = {latent}: {1000 * exact[0]:.0f} ms exact and {1000 * probes[0]:.0f} ms with one probe ({probes[1]:.0f} iterations)"
            for latent, exact, probes in zip(dims, found["exact"], found["probes"], strict=True)
        ),
        confirmed=bool(slower) and max(dims) in slower,
        seeds=1,
        note=f"CPU time of loss and gradient of {len(rows)} rows of {wide} coordinates, tolerance 1e-3, random data; crossover "
        + (f"at or below d = {min(slower)}" if slower else f"beyond d = {max(dims)}"),
    )  # fmt: skip


def _step(experiment: Experiment, rows: Tensor, latent: int, volume: str) -> list[float]:
    """Median CPU seconds of the loss and its gradient, and the iterations of the linear solver in the last one."""
    torch.manual_seed(0)
    model = RectangularFlow(rows.shape[1], latent, volume=volume, layers=4, hidden=(128,), latent_hidden=(128,))
    model.initialize(rows)
    times = []
    for repeat in range(experiment.choose(smoke=2, quick=4, full=10)):
        model.zero_grad()
        start = time.process_time()
        model.loss(rows, generator=torch.Generator().manual_seed(repeat)).backward()
        times.append(time.process_time() - start)
    iterations = 0 if model.solve is None else model.solve.iterations
    return [sorted(times[1:])[len(times[1:]) // 2], iterations]
