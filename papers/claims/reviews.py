"""Two reviews of normalizing flows: a comparison of families (Kobyzev et al. 2020; Papamakarios et al. 2021)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial

import torch
from torch import Tensor

from benchmarks.common.datasets import load_table
from papers.experiment import Experiment, Trained, UnfinishedError, all_hold, bits_per_dim, clearly_below, spread
from papers.flows.equal_time import AFFINE, UNIVERSAL, Cell, Column, Parts, columns_of, draw, ranks, run_column
from papers.flows.table_recipes import COPIES
from papers.reproduction import reproduction
from pushforward.distributions import Normal
from pushforward.models import (
    BNAF,
    CNF,
    IAF,
    MAF,
    NICE,
    NSF,
    ConvGlow,
    Flow,
    Glow,
    ImageNICE,
    ImageNSF,
    ImageRealNVP,
    Model,
    PixelCNN,
    RealNVP,
    ResidualFlow,
)
from pushforward.report.text import plural
from pushforward.transforms import (
    AffineTransformer,
    BernsteinTransformer,
    Chain,
    CubicSplineTransformer,
    MixtureCDFTransformer,
    Monotone,
    Planar,
    QuadraticSplineTransformer,
    SigmoidalTransformer,
    SplineTransformer,
    Standardize,
    SumOfSquaresTransformer,
    Transform,
    Transformer,
    UnconstrainedMonotoneTransformer,
)

__all__ = ["run", "two_dimensional"]


@reproduction(
    "reviews",
    "Normalizing Flows: An Introduction and Review (Kobyzev, Prince, Brubaker 2020, arXiv 1908.09257), and Normalizing Flows for "
    "Probabilistic Modeling and Inference (Papamakarios et al. 2021, arXiv 1912.02762)",
    data=("fashion-mnist", "uci/protein", "uci/kin40k", "uci/elevators"),  # the tables: long and full
    full="a day on one GPU, and four of CPU time for the comparison of all families (estimate)",
)
def run(experiment: Experiment) -> None:
    """Compare transformers in one dimension, families in two, flow matching with likelihood, and flows with a PixelCNN.

    A long or full run also compares all families of the library at equal time.
    """
    _one_dimensional(experiment)
    _families(experiment)
    _continuous(experiment)
    _autoregressive(experiment)
    if experiment.budget != "quick":
        _equal_time(experiment)  # last, because it takes most of the time


def _trimodal(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Three separate normals on a line, and the log-densities of the rows."""
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.tensor([0.3, 0.4, 0.3])),
        torch.distributions.Normal(torch.tensor([-4.0, 0.0, 3.0]), torch.tensor([0.5, 1.0, 0.3])),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        rows = mixture.sample((count,))
    return rows[:, None], mixture.log_prob(rows)


def _one_dimensional(experiment: Experiment) -> None:
    count = experiment.choose(smoke=100, quick=10_000, full=50_000)
    train, _ = _trimodal(count, 0)
    test, truth = _trimodal(count, 1)
    held_out, _ = _trimodal(1000, 2)
    transformers: dict[str, Transformer] = {
        "affine": AffineTransformer(),
        "sum of squares": SumOfSquaresTransformer(),
        "Bernstein": BernsteinTransformer(),
        "UMNN": UnconstrainedMonotoneTransformer(),
        "sigmoidal (NAF)": SigmoidalTransformer(),
        "mixture CDF (Flow++)": MixtureCDFTransformer(),
        "quadratic spline": QuadraticSplineTransformer(),
        "cubic spline": CubicSplineTransformer(),
        "rational-quadratic spline": SplineTransformer(),
    }
    parts: dict[str, Callable[[], list[Transform]]] = {
        name: lambda transformer=transformer: [Monotone(1, transformer)] for name, transformer in transformers.items()
    }
    parts["8 planar"] = lambda: [Planar(1) for _ in range(8)]
    gaps: dict[str, list[float]] = {name: [] for name in parts}
    for name, transforms in parts.items():
        for seed in experiment.repeats:
            key = f"one-dimensional {name} {seed}"
            trained = experiment.trained(
                key, lambda transforms=transforms: Flow(Chain(Standardize(1), *transforms()), Normal(1)), train, held_out, seed=seed,
                max_steps=experiment.choose(smoke=2, quick=3000, full=5000), learning_rate=1e-2, patience=None,
            )  # fmt: skip
            gap = experiment.measure(
                f"{key} gap", lambda trained=trained: truth.double().mean().item() - _mean(trained.model, test)
            )
            gaps[name].append(gap)
    experiment.report(
        "universal transformers of one variable fit what an affine one cannot",
        ours="KL to a trimodal truth in nats: "
        + ", ".join(
            f"{name} {spread(values)}"
            for name, values in sorted(gaps.items(), key=lambda item: statistics.fmean(item[1]))
        ),
        confirmed=all_hold(
            clearly_below(values, [0.5 * gap for gap in gaps["affine"]])
            for name, values in gaps.items()
            if name != "affine"
        ),
        seeds=len(gaps["affine"]),
        note="criterion: clearly below half of the affine one's; one layer each, 8 of planar; steps and optimizer equal, no early stopping: transformers of "
        "sigmoids start at a saddle point where all their units are equal, and need hundreds of steps to leave it",
    )


def _mean(model: Model, rows: Tensor) -> float:
    """Mean log-likelihood in nats."""
    with torch.no_grad():
        return model.evaluate(rows).value.double().mean().item()


def two_dimensional(name: str, count: int, seed: int) -> Tensor:
    """Rows of a target in the plane: "rings", "moons", "checkerboard", "eight normals", "spirals" or "pinwheel"."""
    draw = torch.Generator().manual_seed(seed)
    normal = torch.randn(count, 2, generator=draw)
    unit = torch.rand(count, 2, generator=draw)
    pick = torch.randint(8, (count,), generator=draw)
    if name == "rings":
        angle, radius = 2 * math.pi * unit[:, 0], 1.0 + (pick % 3) + 0.08 * normal[:, 0]
        return torch.stack((radius * angle.cos(), radius * angle.sin()), 1)
    if name == "moons":
        angle, lower = math.pi * unit[:, 0], pick % 2 == 1
        upper = torch.stack((angle.cos(), angle.sin()), 1)
        moved = torch.stack((1 - angle.cos(), 0.5 - angle.sin()), 1)
        return 2 * torch.where(lower[:, None], moved, upper) + 0.1 * normal
    if name == "checkerboard":
        row = torch.floor(unit[:, 1] * 4)
        column = 2 * (pick % 2) + row % 2
        return torch.stack((column + unit[:, 0] - 2, 4 * unit[:, 1] - 2), 1) * 1.5
    if name == "eight normals":
        angle = 2 * math.pi * pick / 8
        return 3 * torch.stack((angle.cos(), angle.sin()), 1) + 0.25 * normal
    if name == "spirals":
        angle = 3 * math.pi * unit[:, 0].sqrt()
        sign = torch.where(pick % 2 == 0, 1.0, -1.0)
        return sign[:, None] * torch.stack((angle * angle.cos(), angle * angle.sin()), 1) / 3 + 0.1 * normal
    arm = 2 * math.pi * (pick % 5) / 5
    radius = 1.5 + 0.5 * normal[:, 0]
    angle = arm + 0.8 * (radius - 1.5)
    across = 0.1 * normal[:, 1]
    return 1.5 * torch.stack(
        (radius * angle.cos() - across * angle.sin(), radius * angle.sin() + across * angle.cos()), 1
    )


TARGETS = ("rings", "moons", "checkerboard", "eight normals", "spirals", "pinwheel")
EQUAL_TIME_TARGETS = ("checkerboard", "spirals", "eight normals", "moons")
EQUAL_TIME_TABLES = ("protein", "kin40k", "elevators")


def _families(experiment: Experiment) -> None:
    """Train every family on every target for the same number of steps, with each seed; report nats and draw the densities."""
    small: dict[str, Callable[[], Model]] = {
        "NICE": lambda: NICE(2, hidden=(64, 64)),
        "Real NVP": lambda: RealNVP(2, hidden=(64, 64)),
        "MAF": lambda: MAF(2, hidden=(64, 64)),
        "IAF": lambda: IAF(2, hidden=(64, 64)),
        "NSF": lambda: NSF(2, layers=4, hidden=(64, 64)),
        "BNAF": lambda: BNAF(2),
        "residual": lambda: ResidualFlow(2, hidden=(64, 64), log_det="exact"),
        "CNF": lambda: CNF(2, hidden=(64, 64), objective="flow-matching"),
    }
    targets = experiment.choose(smoke=TARGETS[:1], quick=("checkerboard", "spirals"), full=TARGETS)
    count = experiment.choose(smoke=100, quick=10_000, full=100_000)
    nats: dict[str, dict[str, list[float]]] = {target: {name: [] for name in small} for target in targets}
    shown: dict[str, dict[str, Trained[Model]]] = {target: {} for target in targets}
    for target in targets:
        train, test = two_dimensional(target, count, 0), two_dimensional(target, count // 5, 1)
        held_out = two_dimensional(target, 1000, 2)
        for name, build in small.items():
            for seed in experiment.repeats:
                key = f"families {target} {name} {seed}"
                trained = experiment.trained(
                    key, build, train, held_out, patience=None, seed=seed,
                    max_steps=experiment.choose(smoke=2, quick=300, full=10_000),
                )  # fmt: skip
                value = experiment.measure(f"{key} nats", lambda trained=trained, test=test: _mean(trained.model, test))
                nats[target][name].append(value)
                shown[target].setdefault(name, trained)
    if not experiment.keeps_picture("families", [trained for row in shown.values() for trained in row.values()]):
        _draw_families(experiment, shown, count)
    for target, found in nats.items():
        order = sorted(found.items(), key=lambda item: -statistics.fmean(item[1]))
        experiment.report(
            f"on {target}, spline couplings beat affine and additive ones",
            ours=", ".join(f"{name} {spread(values, 2)}" for name, values in order),
            confirmed=all_hold(_clearly_above(found["NSF"], found[other]) for other in ("NICE", "Real NVP")),
            seeds=len(found["NSF"]),
            note="test log-likelihood in nats, equal steps of 512 rows; other universal families train more slowly",
        )


def _clearly_above(high: Sequence[float], low: Sequence[float]) -> bool | None:
    return clearly_below([-value for value in high], [-value for value in low])


def _draw_families(experiment: Experiment, shown: Mapping[str, Mapping[str, Trained[Model]]], count: int) -> None:
    """Draw test rows of each target and the densities of the first seed."""
    names = list(next(iter(shown.values())))
    figure = experiment.figure(1.6 * (len(names) + 1), 1.7 * len(shown))
    grid = figure.subplots(len(shown), len(names) + 1, squeeze=False)
    side = torch.linspace(-5, 5, 100)
    plane = torch.cartesian_prod(side, side)
    for row, (target, models) in zip(grid, shown.items(), strict=True):
        rows = two_dimensional(target, count // 5, 1)[:2000]
        row[0].plot(*rows.T.numpy(), ".", ms=1, color="#3b6ea5")
        row[0].set(xlim=(-5, 5), ylim=(-5, 5), ylabel=target)
        for axes, name in zip(row[1:], names, strict=True):
            with torch.no_grad():
                density = models[name].model.evaluate(plane).value.exp().reshape(100, 100)
            axes.imshow(density.T.numpy(), origin="lower", extent=(-5, 5, -5, 5), cmap="magma")
            axes.set(title=name if target == next(iter(shown)) else "")
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
    experiment.picture("families", figure)


def _continuous(experiment: Experiment) -> None:
    """Train the same continuous flow by likelihood and by flow matching, for equal time."""
    seconds = experiment.choose(smoke=1, quick=8, full=600)
    count = experiment.choose(smoke=100, quick=20_000, full=100_000)
    train, test = (
        two_dimensional("spirals", count, 0),
        two_dimensional("spirals", experiment.choose(smoke=50, quick=2000, full=20_000), 1),
    )
    held_out = two_dimensional("spirals", 200, 2)
    found: dict[str, list[float]] = {"flow-matching": [], "likelihood": []}
    steps: dict[str, float] = {}
    limits = {
        objective: experiment.time_limit(
            f"cnf {objective}",
            lambda objective=objective: CNF(2, hidden=(64, 64), objective=objective),
            train,
            smoke=2,
            quick=seconds,
            full=seconds,
        )
        for objective in found
    }
    for seed in experiment.repeats:
        for objective in found:
            trained = experiment.trained(
                f"cnf {objective} {seed}", lambda objective=objective: CNF(2, hidden=(64, 64), objective=objective), train, held_out,
                seed=seed, patience=None, **limits[objective],
            )  # fmt: skip
            steps[objective] = trained.facts["steps"]
            value = experiment.measure(
                f"cnf {objective} {seed} nats", lambda trained=trained: _mean(trained.model, test)
            )
            found[objective].append(value)
    experiment.report(
        "flow matching trains a continuous flow faster than maximum likelihood",
        ours=f"{spread(found['flow-matching'])} against {spread(found['likelihood'])} nats on spirals after {seconds} s of CPU time each",
        confirmed=min(found["flow-matching"]) > max(found["likelihood"]),
        seeds=len(found["likelihood"]),
        note=f"{steps['flow-matching']:,} and {steps['likelihood']:,} steps, by a measurement before; both evaluated by the same exact likelihood; criterion: the worst seed of "
        "the one is ahead of the best of the other",
    )


def _autoregressive(experiment: Experiment) -> None:
    """Train every family of image flows and a PixelCNN for equal CPU time; report bits/dim and draw samples."""
    train, held_out, test = experiment.image_parts(
        "fashion-mnist",
        rows=experiment.choose(smoke=150, quick=20_000, full=60_000),
        held_out=experiment.choose(smoke=50, quick=200, full=5000),
        test=experiment.choose(smoke=50, quick=500, full=10_000),
    )
    shape = (1, 28, 28)
    steps, hidden = (
        experiment.choose(smoke=1, quick=4, full=16),
        experiment.choose(smoke=(8, 8), quick=(48, 48), full=(256, 256)),
    )
    width = experiment.choose(smoke=8, quick=32, full=96)
    models: dict[str, Callable[[], Model]] = {
        "PixelCNN": lambda: PixelCNN(shape, output="logistic", filters=experiment.choose(smoke=4, quick=16, full=96),
                                     layers=experiment.choose(smoke=1, quick=4, full=6)),
        "NICE": lambda: ImageNICE(shape=shape, hidden=experiment.choose(smoke=(8,), quick=(300, 300), full=(1000,) * 5),
                             scaling_multiplier=10.0),
        "Real NVP": lambda: ImageRealNVP(shape=shape, layers=experiment.choose(smoke=2, quick=2, full=8),
                                    hidden=experiment.choose(smoke=(4,), quick=(16, 16), full=(64,) * 8)),
        "Glow": lambda: Glow(shape, layers=steps, hidden=hidden),
        "n x n Glow": lambda: ConvGlow(shape, layers=steps, hidden=hidden),
        "NSF": lambda: ImageNSF(shape=shape, layers=experiment.choose(smoke=1, quick=4, full=8), hidden=(width, width)),
    }  # fmt: skip
    seconds = experiment.choose(smoke=1, quick=20, long=300, full=24 * 3600)
    bits: dict[str, float] = {}
    taken: dict[str, float] = {}
    shown: dict[str, Trained[Model]] = {}
    for name, build in models.items():
        limit = experiment.time_limit(
            f"images {name}", build, train, smoke=2, quick=seconds, full=seconds, batch_size=64
        )
        shown[name] = trained = experiment.trained(
            f"images {name}", build, train, held_out, batch_size=64, patience=None,
            evaluate_every=experiment.choose(smoke=2, quick=200, full=1000), **limit,
        )  # fmt: skip
        taken[name] = trained.facts["steps"]
        bits[name] = experiment.measure(
            f"images {name} bits", lambda trained=trained: bits_per_dim(trained.model, test, batch=50)
        )
    if not experiment.keeps_picture("images", shown.values()):
        count = experiment.choose(smoke=2, quick=12, full=12)
        drawn = {name: trained.model.sample(count, seed=0) for name, trained in shown.items()}
        experiment.strip("images", {"test": test[:12]} | drawn)
    experiment.report(
        "an autoregressive model of pixels is ahead of all flows in likelihood",
        paper="2.92 bits/dim (PixelCNN++) against 3.35 (Glow) on CIFAR-10",
        ours=", ".join(f"{name} {value:.3f}" for name, value in sorted(bits.items(), key=lambda item: item[1]))
        + " bits/dim on Fashion-MNIST",
        confirmed=bits["PixelCNN"] < min(value for name, value in bits.items() if name != "PixelCNN"),
        seeds=1,
        note=f"{seconds} s of CPU time each, as steps of 64 by a measurement before: "
        + ", ".join(f"{name} {count:,.0f}" for name, count in taken.items())
        + "; one seed; PixelCNN exact, the flows' bounds; criterion: the lowest figure",
    )


def _equal_time_columns(experiment: Experiment) -> list[Column]:
    """The densities in the plane, the tables and the images on which all families are compared."""
    count, held_out, test = experiment.choose(
        smoke=(64, 16, 16), quick=(100_000, 2000, 20_000), full=(100_000, 2000, 20_000)
    )

    @cache
    def plane(target: str, seed: int) -> Parts:
        drawn = ((count, 10 + seed), (held_out, 50 + seed), (test, 1))
        return tuple(two_dimensional(target, *each) for each in drawn)  # pyright: ignore[reportReturnType]

    @cache
    def table(name: str, seed: int) -> Parts:
        parts = load_table(name, seed=seed, folder=experiment.data)
        return tuple(part[:64] for part in parts) if experiment.budget == "smoke" else parts  # pyright: ignore[reportReturnType]

    @cache
    def images() -> Parts:
        return experiment.image_parts(
            "fashion-mnist",
            rows=experiment.choose(smoke=48, quick=60_000, full=60_000),
            held_out=experiment.choose(smoke=16, quick=300, full=1000),
            test=experiment.choose(smoke=16, quick=1000, full=10_000),
        )

    targets = experiment.choose(smoke=TARGETS[2:3], quick=EQUAL_TIME_TARGETS, full=EQUAL_TIME_TARGETS)
    tables = experiment.choose(smoke=EQUAL_TIME_TABLES[:1], quick=EQUAL_TIME_TABLES, full=EQUAL_TIME_TABLES)
    return columns_of(
        experiment,
        {target: partial(plane, target) for target in targets},
        {name: partial(table, name) for name in tables},
        lambda _: images(),
    )


def _equal_time(experiment: Experiment) -> None:
    """Train all families of the library for equal CPU time, and report the columns that are finished."""
    columns = _equal_time_columns(experiment)
    found: dict[str, dict[str, Cell]] = {}
    unfinished: UnfinishedError | None = None
    for column in columns:
        try:
            found[column.name] = run_column(experiment, column)
        except UnfinishedError as error:
            unfinished = unfinished or error
    if unfinished and not found:
        raise unfinished
    columns = [column for column in columns if column.name in found]
    draw(experiment, columns, found, "equal-time")
    places = {name: ranks(cells) for name, cells in found.items()}

    def median(column: str, families: Sequence[str]) -> float:
        return statistics.median(places[column][family] for family in families if family in places[column])

    def order(group: str) -> str:
        names = [column.name for column in columns if column.group == group]
        if not names:
            return "open"
        means = {family: statistics.fmean(places[name][family] for name in names) for family in places[names[0]]}
        return ", ".join(f"{family} {mean:.1f}" for family, mean in sorted(means.items(), key=lambda item: item[1]))

    vectors = [column.name for column in columns if column.group != "images"]
    ahead = [name for name in vectors if median(name, UNIVERSAL) < median(name, AFFINE)]
    time = experiment.choose(
        smoke="steps", quick="", long="20 s of CPU time (images 150 s)", full="600 s (images one hour)"
    )
    _report_couplings(experiment, found, time, finished=unfinished is None)
    experiment.report(
        "after equal time, universal transformers are ahead of affine ones on densities of vectors",
        paper="splines ahead of MAF and Glow in five of five tables after long training; NAF, B-NAF and SOS in four",
        ours=f"ahead by the median rank in {len(ahead)} of {len(vectors)}; mean ranks in the plane: {order('plane')}; on tables: {order('tables')}; "
        f"on Fashion-MNIST: {order('images')}",
        confirmed=False if len(ahead) < len(vectors) else None if unfinished else True,
        seeds=len(experiment.repeats),
        note=f"{time} each without evaluations, as steps by a measurement before, {plural(len(experiment.repeats), 'seed')}, in the picture with the spread of the distance to the best; AdamW "
        "with a cosine schedule over the time; vectors: batches of 512, networks of two layers of 64 units and otherwise the sizes of the classes, the rate of "
        "1e-3, 3e-3 and 1e-2 that held-out rows prefer after a tenth of the time with the first seed; images: sizes, batches of 16 and the rate "
        "3e-3 of benchmarks.quality.families, where PixelCNN was made smaller after a first run. Seeds draw other training rows or splits, but the "
        "images are the same. Bounds: VAE (64 draws, images 8), and every flow of images (8 draws; i-ResNet by an unbiased series). Not in the table because they are another "
        "family with a gate (InFlow), for categories (DiscreteFlow), or without a density of all coordinates (manifolds, AEF, CyGen). "
        f"The tables are the three largest without the defects that benchmarks/quality/data.py names; {COPIES}",
    )
    if unfinished:
        raise unfinished


def _report_couplings(
    experiment: Experiment, found: Mapping[str, Mapping[str, Cell]], time: str, finished: bool
) -> None:
    """Compare the spline and the affine couplings of vectors, set by set; sets that are not finished may still refute."""
    pairs = {
        name: list(zip(cells["NSF (C)"], cells["Real NVP"], strict=True))
        for name, cells in found.items()
        if {"NSF (C)", "Real NVP"} <= cells.keys() and name != "Fashion-MNIST"
    }
    whole = {name: [each for each in pair if None not in each] for name, pair in pairs.items()}  # neither diverged
    nats = {name: tuple(zip(*pair, strict=True)) for name, pair in whole.items() if pair}
    if not nats:
        return
    # Where splines diverged they are not ahead; a seed with which only the affine couplings did does not count.
    lost = [name for name, pair in pairs.items() if None in (ours for ours, _ in pair)]
    clear = {name: _clearly_above(*pair) for name, pair in nats.items()} | dict.fromkeys(lost, False)
    experiment.report(
        "after equal time, spline couplings are ahead of affine ones on densities of vectors",
        paper="RQ-NSF (C) ahead of Glow in five of five tables after long training",
        ours="; ".join(f"{name} {spread(ours)} against {spread(theirs)}" for name, (ours, theirs) in nats.items())
        + " nats",
        confirmed=all_hold([*clear.values(), True if finished else None]),
        seeds=min(len(ours) for ours, _ in nats.values()),
        note=f"clear: {', '.join(name for name, is_clear in clear.items() if is_clear) or 'none'}; {time} each, as in the next line; NSF (C) and Real NVP"
        + (f"; splines diverged on {', '.join(lost)}" if lost else ""),
    )
