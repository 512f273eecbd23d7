"""Rectangular flows (Caterini et al. 2021): densities on learned curves and surfaces, against known ones."""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from statistics import fmean
from typing import Any, cast

import torch
from torch import Tensor

from benchmarks.common.datasets import load_table
from papers.experiment import PAPER_TRAINING, Experiment, all_hold, clearly_below, size, spread
from papers.manifolds import (
    Level,
    ManifoldDistribution,
    circle,
    compare,
    rotated,
    sphere,
    swiss_roll,
    train_in_phases,
    train_until_level,
)
from papers.rectangular_images import SETS, study_images
from papers.reproduction import reproduction
from pushforward.distributions import Distribution, GaussianMixture, StudentT
from pushforward.io import load, save
from pushforward.models import (
    NSF,
    AutoEncoder,
    ConformalEmbeddingFlow,
    ManifoldModel,
    Model,
    RealNVP,
    RectangularFlow,
    TwoStep,
)
from pushforward.training import fit, fit_two_step
from pushforward.transforms import SplineTransformer

__all__ = ["run"]


TABLES = ("protein", "kin40k")


@reproduction(
    "rectangular",
    "Rectangular Flows for Manifold Learning (Caterini, Loaiza-Ganem, Pleiss, Cunningham 2021, arXiv 2106.01413)",
    data=(*(f"uci/{name}" for name in TABLES), *SETS),
    full="eight hours on 16 cores (estimate)",
)
def run(experiment: Experiment) -> None:
    """Compare eight methods of learning a manifold, an ambient flow that overfits a circle, UCI tables, images, and costs of gradients."""
    tables = {
        target.name: _table(experiment, target)
        for target in (circle(), sphere(), swiss_roll(), rotated(swiss_roll(), 20))
    }
    _bars(experiment, tables)
    _overfitting(experiment, tables["circle"])
    _tables(experiment)
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


def _overfitting(experiment: Experiment, on_curve: dict[str, list[dict[str, float]]]) -> None:
    """Follow one ambient flow in training: its likelihood has no upper bound and says nothing about the distribution."""
    target, stages = (
        circle(),
        experiment.choose(smoke=(1, 2), quick=(250, 500, 1000, 2000, 4000), full=(1000, 3000, 10_000, 30_000, 100_000)),
    )
    rows = target.sample(experiment.choose(smoke=100, quick=10_000, full=50_000), 0)

    def follow(seed: int) -> list[dict[str, float]]:
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
            found.append(compare(target, model, cells=_cells(target), **_sizes(experiment)))
        return found

    runs = [experiment.measure(f"ambient {seed}", lambda seed=seed: follow(seed)) for seed in experiment.few(2, long=5)]
    figure = experiment.figure(7.5, 2.6)
    left, right = figure.subplots(1, 2)
    for found in runs:
        left.plot(stages, [entry["nats"] for entry in found], ".-")
        right.plot(stages, [entry["tv"] for entry in found], ".-")
    left.axhline(runs[0][0]["truth"], color="gray", ls=":")
    left.set(xscale="log", xlabel="steps", title="log-likelihood in the plane, nats")
    right.axhline(runs[0][0]["floor"], color="gray", ls=":", label="floor")
    for method, style in (("exact", "-."), ("two-step", "--")):
        right.axhline(on_curve[method][0]["tv"], color="black", ls=style, lw=0.8, label=f"on the curve: {method}")
    right.legend(fontsize=6, loc="lower left")
    right.set(xscale="log", xlabel="steps", ylim=(0, None), title="total variation of the angles")
    for axes in (left, right):
        axes.set_xticks(stages, [f"{stage:,}" for stage in stages], fontsize=7)
        axes.minorticks_off()
    experiment.picture("overfitting", figure)
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
        note=f"noise floor of the total variation {floor:.3f}; criterion: it ends 0.5 nats higher in every run, and in some interval "
        "the likelihood rises and the total variation rises by more than the floor",
    )  # fmt: skip


def _level(experiment: Experiment) -> Level | None:
    """The long run trains until the loss on held-out rows is level, the others for a number of steps."""
    return Level(1500, 6) if experiment.budget == "long" else None


Lengths = defaultdict[str, list[dict[str, Any]]]
"""For each method and seed the steps of a training until level, and the number of phases that reached their limit."""


def _models(
    experiment: Experiment, target: ManifoldDistribution, lengths: Lengths
) -> dict[str, Callable[[int], Model]]:
    """Functions of a seed that train each method on the distribution.

    Without levels all have an equal number of steps. Rectangular flows have equal networks; the networks of the autoencoder and
    the number of couplings of the ambient flow are their own.
    """
    steps = experiment.choose(smoke=3, quick=1500, full=12_000)
    width = experiment.choose(smoke=(8,), quick=(32, 32), long=(64, 64), full=(64, 64))
    rows = target.sample(experiment.choose(smoke=100, quick=10_000, full=50_000), 0)
    held_out, level = target.sample(2000, 500), _level(experiment)
    code_transformer = SplineTransformer(8)
    batch = experiment.choose(smoke=20, quick=250, full=500)
    options: dict[str, Any] = {
        "layers": experiment.choose(smoke=2, quick=4, long=6, full=6), "hidden": width, "latent_hidden": width,
        "transformer": code_transformer, "reconstruction_weight": 50.0 if target.dim == 1 else 500.0,
    }  # fmt: skip

    def train(name: str, make: Callable[[], ManifoldModel], seed: int, phases: dict[str, int]) -> Model:
        """Train in phases of so many steps, or each until it is level."""
        key = f"{target.name} {name} {seed}"
        shared: dict[str, Any] = {"seed": seed, "batch_size": batch, "learning_rate": 3e-3}
        if level is None:
            return train_in_phases(experiment, key, make, rows, phases, **shared)
        model, facts = train_until_level(experiment, key, make, rows, held_out, level, phases=tuple(phases), **shared)
        lengths[name].append(facts)
        return model

    def surface(seed: int, phases: dict[str, int], method: str, **more: Any) -> Model:
        return train(method, partial(RectangularFlow, target.ambient, target.dim, **{**options, **more}), seed, phases)

    # The likelihood alone prefers a small surface to the right one, so its phase begins when there is a surface (the paper's warm-up),
    # but for the circle, where a curve trained without a likelihood covers the circle in both directions and does not recover.
    warm = {"manifold": steps // 3, "joint": steps - steps // 3}
    joint = {"joint": steps} if target.dim == 1 else warm
    halves = {"manifold": steps // 2, "density": steps - steps // 2}

    def ambient(seed: int) -> Model:
        make, key = partial(RealNVP, target.ambient, layers=8, hidden=width), f"{target.name} ambient {seed}"
        shared: dict[str, Any] = {"seed": seed, "batch_size": batch, "learning_rate": 3e-3}
        if level is not None:
            model, facts = train_until_level(experiment, key, make, rows, held_out, level, **shared)
            lengths["ambient"].append(facts)
            return model
        return experiment.train(key, make, rows, None, max_steps=steps, **shared)[0]

    def conformal(seed: int) -> Model:
        def make() -> ConformalEmbeddingFlow:
            # Codes of a distribution on the whole sphere have the tails of Student's t with d degrees of freedom.
            base = StudentT(target.dim, float(target.dim))
            return ConformalEmbeddingFlow(
                target.ambient, target.dim, hidden=width, transformer=code_transformer, base=base
            )

        return train("conformal", make, seed, warm)

    def two_step(seed: int) -> Model:
        file = experiment.model_file(f"{target.name} two-step {seed}")

        def density() -> Model | Distribution:
            if target.dim == 1:
                return GaussianMixture(1, 20, seed=seed)
            return NSF(target.dim, layers=3, hidden=(width[0], width[0]))

        def until_level(level: Level) -> dict[str, float]:
            # Without a penalty of the codes, which bends the curve of a surface that reconstructs best.
            make = partial(
                AutoEncoder,
                target.ambient,
                latent=target.dim,
                hidden=(128, 128),
                activation="silu",
                penalty="mmd",
                penalty_weight=0.0,
            )
            key = f"{target.name} two-step {seed}"
            shared: dict[str, Any] = {"seed": seed, "batch_size": batch}
            first, facts = train_until_level(
                experiment, f"{key} autoencoder", make, rows, held_out, level, learning_rate=5e-3, **shared
            )
            torch.manual_seed(seed)
            model = TwoStep(cast("AutoEncoder", first), density())
            done = fit_two_step(
                model, rows, validation=held_out, autoencoder=False, config=PAPER_TRAINING, learning_rate=3e-3, patience=None,
                max_steps=level.stage * level.most, evaluate_every=max(1, level.stage // 4), **shared,
            )  # fmt: skip
            save(model, file)
            facts["steps"] += done.density.steps
            return {"parameters": size(model), "injective": float(done.injectivity.passed), **facts}

        def run() -> dict[str, float]:
            if level is not None:
                return until_level(level)
            torch.manual_seed(seed)
            second = density()
            model = TwoStep(AutoEncoder(target.ambient, latent=target.dim, hidden=(64, 64), activation="silu"), second)
            shared: dict[str, Any] = {"validation": None, "config": PAPER_TRAINING, "seed": seed}
            fit_two_step(
                model, rows, batch_size=batch, autoencoder={"max_steps": steps // 2, "learning_rate": 5e-3},
                density={"max_steps": steps - steps // 2, "learning_rate": 3e-3}, **shared,
            )  # fmt: skip
            save(model, file)
            return {"parameters": size(model), "injective": float(model.embed.injective)}

        facts = experiment.measure(f"{target.name} two-step {seed}", run, file)
        if level is not None:
            lengths["two-step"].append(facts)
        return cast("Model", load(file))

    methods: dict[str, Callable[[int], Model]] = {
        "ambient": ambient,
        "conformal": conformal,
        "exact": partial(surface, phases=joint, method="exact"),
    }
    if target.dim > 1:  # with one code there is one direction, and its random sign gives the exact value
        methods["K = 1"] = partial(surface, phases=joint, method="K = 1", volume="probes")
        # Ten probes cost ten times one, which is too much for trainings until they are level.
        if level is None and (target.name == "Swiss roll" or experiment.budget == "full"):
            methods["K = 10"] = partial(surface, phases=joint, method="K = 10", volume="probes", probes=10)
    free: dict[str, Any] = {"decoder": "free-form", "volume": "encoder", "probes": target.dim, "hidden": (64, 64), "reconstruction_weight": 500.0}  # fmt: skip
    methods["free form"] = partial(surface, phases=warm, method="free form", **free)
    methods["M-flow"] = partial(surface, phases=halves, method="M-flow")
    methods["two-step"] = two_step
    return methods


def _table(experiment: Experiment, target: ManifoldDistribution) -> dict[str, list[dict[str, float]]]:
    """Total variation, density and distance of every method, after an equal number of steps or until level."""
    lengths: Lengths = defaultdict(list)
    methods = _models(experiment, target, lengths)
    found: dict[str, list[dict[str, float]]] = {method: [] for method in methods}
    for seed in experiment.few(1, long=5):
        for method, train in methods.items():
            model = train(seed)
            found[method].append(
                experiment.measure(
                    f"{target.name} {method} {seed} compared",
                    lambda model=model, seed=seed: compare(
                        target, model, cells=_cells(target), seed=seed, **_sizes(experiment)
                    ),
                )
            )
    long = _long(lengths)  # before the picture, which reads models again
    if target.ambient < 4:
        _picture(experiment, target, {method: train(0) for method, train in methods.items()})

    def column(method: str, what: str) -> list[float]:
        return [entry[what] for entry in found[method]]

    truth, floor = fmean(column("exact", "truth")), column("exact", "floor")[0]
    experiment.report(
        f"{target.name}: a rectangular flow learns the distribution on the surface",
        ours="; ".join(
            f"{method}: total variation {spread(column(method, 'tv'))}, median distance {fmean(column(method, 'distance')):.1e}, "
            f"{spread(column(method, 'nats'), 2)} nats"
            + ("" if method == "ambient" else f", squared residual {fmean(column(method, 'residual')):.1e}") for method in methods
        ),
        confirmed=max(column("exact", "tv")) < min(0.1, min(column("ambient", "tv"))),
        note=f"total variation of the nearest points of samples on the surface, and their median distance to it; floor {floor:.3f}; the truth "
        f"on the surface has {truth:.2f} nats, and those of the ambient flow have another measure; seeds: {len(found['exact'])}; "
        f"criterion: in every run below 0.1 and below the best of the ambient flow{_how_long(experiment)}{long}",
    )  # fmt: skip
    experiment.report(
        f"{target.name}: trained jointly, surface and density beat the two phases of M-flow",
        ours=f"total variation {spread(column('exact', 'tv'))} against {spread(column('M-flow', 'tv'))}, squared residual "
        f"{fmean(column('exact', 'residual')):.1e} against {fmean(column('M-flow', 'residual')):.1e}",
        confirmed=max(column("exact", "tv")) < min(column("M-flow", "tv")) - floor,
        note="criterion: the worst run of the one is below the best of the other by more than the floor",
    )
    if target.dim > 1:
        probes = [method for method in ("exact", "K = 10", "K = 1") if method in methods]
        experiment.report(
            f"{target.name}: the stochastic gradient does as well as the exact one",
            ours=", ".join(f"{method} {spread(column(method, 'tv'))}" for method in probes) + " total variation",
            confirmed=all(
                one < exact + 2 * floor for one, exact in zip(column("K = 1", "tv"), column("exact", "tv"), strict=True)
            ),
            note="criterion: for every seed K = 1 is at most twice the floor above the exact one",
        )
    return found


def _long(lengths: Lengths) -> str:
    """How many steps each method needed; "" if the number was given."""
    texts = []
    for method, runs in lengths.items():
        steps, open_ends = [facts["steps"] for facts in runs], sum(facts["unfinished"] for facts in runs)
        texts.append(
            f"{method} {min(steps):,.0f} to {max(steps):,.0f}"
            + (f" ({open_ends:.0f} at the limit)" if open_ends else "")
        )
    return (
        f"; steps of all phases, and phases that reached their limit before they were level: {', '.join(texts)}"
        if texts
        else ""
    )


def _how_long(experiment: Experiment) -> str:
    level = _level(experiment)
    if level is None:
        return ""
    return (
        f"; stages of {level.stage:,} steps until {level.patience} in a row are not {level.nats} nats (manifold alone: {100 * level.relative:g} %) "
        f"below the last stage that was, on 2,000 held-out rows, at most {level.most} in a phase; each starts from the best one"
    )


def _bars(experiment: Experiment, tables: dict[str, dict[str, list[dict[str, float]]]]) -> None:
    """Draw the table, and report whether two steps avoid the overfitting."""
    figure = experiment.figure(2.3 * len(tables), 2.4)
    for axes, (name, found) in zip(figure.subplots(1, len(tables), squeeze=False)[0], tables.items(), strict=True):
        methods = list(reversed(found))
        axes.barh(methods, [fmean(entry["tv"] for entry in found[method]) for method in methods], height=0.6)
        axes.axvline(found["exact"][0]["floor"], color="gray", ls=":")
        axes.set(title=name, xlim=(0, None), xlabel="total variation")
        axes.tick_params(labelsize=7)
    experiment.picture("total-variation", figure)
    experiment.report(
        "two steps, an autoencoder and then a density of its codes, learn the distribution better than a flow of the whole space",
        ours="total variation " + "; ".join(
            f"{name}: {spread([e['tv'] for e in found['two-step']])} against {spread([e['tv'] for e in found['ambient']])}"
            for name, found in tables.items()
        ),
        confirmed=all(
            max(e["tv"] for e in found["two-step"]) < min(e["tv"] for e in found["ambient"]) - found["exact"][0]["floor"]
            for found in tables.values()
        ),
        note="criterion: on every surface, by more than the floor",
    )  # fmt: skip


def frechet(x: Tensor, y: Tensor) -> float:
    """Distance of the normals with the rows' means and covariances, squared: the "FID" of plain columns (Dowson and Landau 1982)."""
    x, y = x.double(), y.double()
    first, second = x.T.cov(), y.T.cov()
    values, axes = torch.linalg.eigh(first)
    root = axes * values.clamp(min=0.0).sqrt() @ axes.T
    middle = torch.linalg.eigvalsh(root @ second @ root).clamp(min=0.0).sqrt().sum()
    return ((x.mean(0) - y.mean(0)).square().sum() + first.trace() + second.trace() - 2 * middle).item()


def _tables(experiment: Experiment) -> None:
    """UCI tables at half their width: samples compared with test rows."""
    steps = experiment.choose(smoke=3, quick=600, full=20_000)
    width, level = experiment.choose(smoke=(8,), quick=(64, 64), full=(128, 128, 128, 128)), _level(experiment)
    found: dict[str, dict[str, list[float]]] = {}
    lengths: Lengths = defaultdict(list)
    for name in TABLES:
        found[name] = {"RNF": [], "M-flow": [], "training rows": []}
        for seed in experiment.few(2, long=5):
            train, kept, test = load_table(name, seed=seed, folder=experiment.data)
            few = experiment.choose(smoke=100, quick=len(train), full=len(train))
            half = train.shape[1] // 2
            options: dict[str, Any] = {"layers": experiment.choose(smoke=1, quick=4, full=10), "hidden": width, "latent_hidden": (32, 32)}  # fmt: skip
            for method, phases in (
                ("RNF", {"manifold": steps // 3, "joint": steps - steps // 3}),
                ("M-flow", {"manifold": steps // 2, "density": steps - steps // 2}),
            ):

                def run(train=train[:few], kept=kept, test=test, half=half, options=options, method=method, phases=phases, seed=seed, name=name) -> dict[str, Any]:  # fmt: skip
                    make = partial(RectangularFlow, train.shape[1], half, **options)
                    key = f"{name} {method} {seed}"
                    shared: dict[str, Any] = {"seed": seed, "learning_rate": 2e-3}
                    if level is None:
                        model: Model = train_in_phases(experiment, key, make, train, phases, **shared)
                        facts = {}
                    else:
                        model, facts = train_until_level(
                            experiment, key, make, train, kept[:2000], level, phases=tuple(phases), **shared
                        )
                    with torch.no_grad():
                        return {"distance": frechet(model.sample(len(test), seed=seed), test), **facts}

                facts = experiment.measure(f"{name} {method} {seed}", run)
                found[name][method].append(facts["distance"])
                if level is not None:
                    lengths[f"{name} {method}"].append(facts)
            found[name]["training rows"].append(frechet(train[: len(test)], test))
    experiment.report(
        "trained jointly, samples are nearer to held-out rows of tables than those of the two phases of M-flow",
        paper="on four tables, against training rows",
        ours="; ".join(
            f"{name}: " + ", ".join(f"{method} {spread(values)}" for method, values in each.items())
            for name, each in found.items()
        ),
        confirmed=all_hold(clearly_below(each["RNF"], each["M-flow"]) for each in found.values()),
        note="squared Frechet distance of standardized columns to the published test rows, d half of D; as many training rows are the floor; "
        f"criterion: on both by two standard errors{_how_long(experiment)}{_long(lengths)}",
    )


def _picture(experiment: Experiment, target: ManifoldDistribution, models: dict[str, Model]) -> None:
    """Log-density over the chart, of the truth and of each model on the true surface."""
    models = {method: model for method, model in models.items() if method != "ambient"}
    u, _ = target.grid(
        experiment.choose(smoke=8, quick=400 if target.dim == 1 else 60, full=1000 if target.dim == 1 else 150)
    )
    x = target.point(u).float()
    with torch.no_grad():
        density = {"truth": target.log_density(x).exp()} | {
            method: model.evaluate(x).value.double().exp() for method, model in models.items()
        }
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
            axes.set(title=method, xticks=[], yticks=[])
    experiment.picture(target.name.replace(" ", "-").replace("^", ""), figure)


def _cost(experiment: Experiment) -> None:
    """Seconds of one training step, exact and with one probe, for d of D = 784 coordinates."""
    wide = experiment.choose(smoke=12, quick=784, full=784)
    dims = experiment.choose(smoke=(2, 8), quick=(2, 8, 32, 128), full=(2, 8, 32, 128))
    rows = torch.randn(experiment.choose(smoke=4, quick=16, full=64), wide, generator=torch.Generator().manual_seed(0))

    def step(latent: int, volume: str) -> list[float]:
        torch.manual_seed(0)
        model = RectangularFlow(wide, latent, volume=volume, layers=4, hidden=(128,), latent_hidden=(128,))
        model.initialize(rows)
        times = []
        for repeat in range(experiment.choose(smoke=2, quick=4, full=10)):
            model.zero_grad()
            start = time.perf_counter()
            model.loss(rows, generator=torch.Generator().manual_seed(repeat)).backward()
            times.append(time.perf_counter() - start)
        iterations = 0 if model.solve is None else model.solve.iterations
        return [sorted(times[1:])[len(times[1:]) // 2], iterations]

    found = {
        volume: [
            experiment.measure(f"step {volume} {latent}", lambda volume=volume, latent=latent: step(latent, volume))
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
        note=f"loss and gradient of {len(rows)} rows of {wide} coordinates, tolerance 1e-3, random data; crossover "
        + (f"at or below d = {min(slower)}" if slower else f"beyond d = {max(dims)}"),
    )  # fmt: skip
