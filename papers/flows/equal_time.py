"""All families of densities of the library after equal CPU time: the models, their training, and the table that compares them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.quality.families import FAMILIES as IMAGE_MODELS
from papers.experiment import Experiment, bits_per_dim
from pushforward.distributions import GaussianMixture, KernelDensity, MADEMixture, Normal
from pushforward.errors import TrainingError
from pushforward.models import (
    BNAF,
    CNF,
    IAF,
    MAF,
    NAF,
    NICE,
    NSF,
    SOS,
    UMNN,
    VAE,
    AutoregressiveFlow,
    BernsteinFlow,
    Flow,
    FunnelFlow,
    GaussianizationFlow,
    ImageFunnelFlow,
    ImageIResNet,
    IResNet,
    Model,
    RealNVP,
    ResidualFlow,
)
from pushforward.models.vector.building import coupling_layers
from pushforward.transforms import (
    Chain,
    CubicSplineTransformer,
    MixtureCDFTransformer,
    Planar,
    QuadraticSplineTransformer,
    Radial,
    Standardize,
    Sylvester,
    Transform,
    Whiten,
)

__all__ = [
    "AFFINE",
    "IMAGES",
    "UNIVERSAL",
    "VECTORS",
    "Cell",
    "Column",
    "best_rate",
    "columns_of",
    "draw",
    "gaps",
    "ranks",
    "run_column",
]

Parts = tuple[Tensor, Tensor, Tensor]
"""Rows for training, for validation and for the test."""

HIDDEN = (64, 64)
"""Hidden layers of every network of a model of vectors."""


def _stack(features: int, layers: Sequence[Transform]) -> Model:
    return Flow(Chain(Standardize(features), *layers), Normal(features))


VECTORS: dict[str, Callable[[int], Model]] = {
    "one normal": lambda d: Flow(Whiten(d), Normal(d)),
    "kernel density": lambda d: Flow(Standardize(d), KernelDensity(d)),
    "mixture of normals": lambda d: Flow(Standardize(d), GaussianMixture(d, components=50)),
    "MADE MoG": lambda d: Flow(Standardize(d), MADEMixture(d, hidden=HIDDEN)),
    "planar": lambda d: _stack(d, [Planar(d, seed=k) for k in range(32)]),
    "radial": lambda d: _stack(d, [Radial(d, seed=k) for k in range(32)]),
    "Sylvester": lambda d: _stack(d, [Sylvester(d, rank=d, seed=2 * k) for k in range(16)]),
    "Gaussianization": GaussianizationFlow,
    "NICE": lambda d: NICE(d, hidden=HIDDEN, scaling_multiplier=10.0),
    "Real NVP": lambda d: RealNVP(d, hidden=HIDDEN),
    "MAF": lambda d: MAF(d, hidden=HIDDEN),
    "MAF MoG": lambda d: MAF(d, hidden=HIDDEN, components=10),
    "IAF": lambda d: IAF(d, hidden=HIDDEN),
    "quadratic splines (AR)": lambda d: AutoregressiveFlow(d, transformer=QuadraticSplineTransformer(), hidden=HIDDEN),
    "cubic splines (AR)": lambda d: AutoregressiveFlow(d, transformer=CubicSplineTransformer(), hidden=HIDDEN),
    "NSF (C)": lambda d: NSF(d, hidden=HIDDEN),
    "NSF (AR)": lambda d: NSF(d, layer="autoregressive", hidden=HIDDEN),
    "Flow++": lambda d: _stack(d, coupling_layers(d, MixtureCDFTransformer(), 8, hidden=HIDDEN)),
    "NAF": lambda d: NAF(d, hidden=HIDDEN),
    "BNAF": BNAF,
    "UMNN": lambda d: UMNN(d, hidden=HIDDEN),
    "SOS": lambda d: SOS(d, hidden=HIDDEN),
    "Bernstein": lambda d: BernsteinFlow(d, hidden=HIDDEN),
    "i-ResNet": lambda d: IResNet(d, hidden=HIDDEN),
    "residual flow": lambda d: ResidualFlow(d, hidden=HIDDEN, log_det="exact"),
    "CNF, likelihood": lambda d: CNF(d, hidden=HIDDEN),
    "CNF, flow matching": lambda d: CNF(d, hidden=HIDDEN, objective="flow-matching"),
    "funnel": lambda d: FunnelFlow(d, hidden=HIDDEN),
    "VAE (bound)": lambda d: VAE(d, latent=max(1, d // 2), hidden=HIDDEN),
}
"""Models of ``d`` coordinates, with the sizes of their classes but for the networks and the stacks without a class of their own."""

IMAGES: dict[str, Callable[[], Model]] = {
    "NICE": IMAGE_MODELS["NICE"],
    "Real NVP": IMAGE_MODELS["RealNVP"],
    "MAF": IMAGE_MODELS["MAF"],
    "NSF (C)": IMAGE_MODELS["NSF"],
    "Flow++": IMAGE_MODELS["FlowPlusPlus"],
    "i-ResNet": lambda: ImageIResNet(shape=(1, 28, 28), blocks=2, hidden=(32,), terms=2, probes=1),
    "residual flow": IMAGE_MODELS["ResidualFlow"],
    "funnel": lambda: ImageFunnelFlow((1, 28, 28), layers=4, hidden=(32, 32)),
    "VAE (bound)": IMAGE_MODELS["VAE"],
    "Glow": IMAGE_MODELS["Glow"],
    "n x n Glow": IMAGE_MODELS["ConvGlow"],
    "TarFlow": IMAGE_MODELS["TarFlow"],
    "PixelCNN": IMAGE_MODELS["PixelCNN, small"],
    "PixelCNN++": IMAGE_MODELS["PixelCNN++"],
}
"""Models of gray images of 28 x 28, with the sizes of ``benchmarks.quality.families``."""

UNTRAINED = ("one normal", "kernel density")
AFFINE = ("NICE", "Real NVP", "MAF", "IAF")
UNIVERSAL = (
    "quadratic splines (AR)", "cubic splines (AR)", "NSF (C)", "NSF (AR)", "Flow++", "NAF", "BNAF", "UMNN", "SOS", "Bernstein",
)  # fmt: skip
"""Couplings and autoregressive flows with a transformer that approximates every increasing function."""


@dataclass(frozen=True)
class Column:
    """One data set of the comparison.

    Attributes:
        name: of the data set.
        group: "plane", "tables" or "images".
        parts: function from a seed to rows.
        families: builders of the models.
        limit: arguments of ``Experiment.time_limit`` but for the batch.
        batch_size: rows of a step.
        rates: learning rates, among which held-out rows choose after a tenth of the time, with seed 0.
        coordinates: D.
    """

    name: str
    group: str
    parts: Callable[[int], Parts]
    families: Mapping[str, Callable[[], Model]]
    limit: Mapping[str, Any]
    batch_size: int
    rates: tuple[float, ...]
    coordinates: int


Cell = list[float | None]
"""Test log-likelihoods in nats, one for each seed; None if the training diverged."""


def columns_of(experiment: Experiment, plane: Mapping[str, Callable[[int], Parts]], tables: Mapping[str, Callable[[int], Parts]],
               images: Callable[[int], Parts]) -> list[Column]:  # fmt: skip
    """The columns: 20 s of CPU time for vectors and 150 s for images in a long run."""
    vectors = experiment.choose(smoke={"smoke": 1}, quick={}, long={"long": 20}, full={"full": 600})
    pictures = experiment.choose(smoke={"smoke": 1}, quick={}, long={"long": 150}, full={"full": 3600})
    default: dict[str, Any] = {"smoke": 1, "quick": 60, "full": 600}
    columns = []
    for group, sets in (("plane", plane), ("tables", tables)):
        for name, parts in sets.items():
            width = parts(0)[0].shape[1]
            # A smoke run builds every family once.
            chosen = ("Real NVP", "NSF (C)") if experiment.budget == "smoke" and group == "tables" else tuple(VECTORS)
            families = {family: partial(VECTORS[family], width) for family in chosen}
            columns.append(Column(name, group, parts, families, default | vectors, 512, (1e-3, 3e-3, 1e-2), width))
    chosen = experiment.choose(smoke=("Glow", "VAE (bound)"), quick=tuple(IMAGES), full=tuple(IMAGES))
    families = {family: IMAGES[family] for family in chosen}
    columns.append(Column("Fashion-MNIST", "images", images, families, default | pictures, 16, (3e-3,), 784))
    return columns


def run_column(experiment: Experiment, column: Column) -> dict[str, Cell]:
    """The cells of a column, one for each family."""
    return {
        family: [_seed(experiment, column, family, seed) for seed in experiment.repeats] for family in column.families
    }


def _seed(experiment: Experiment, column: Column, family: str, seed: int) -> float | None:
    key = f"equal time {column.name} {family} {seed}"
    value = experiment.measure(f"{key} nats", lambda: _measure(experiment, column, family, seed, key))
    experiment.forget(key)
    return value


def _measure(experiment: Experiment, column: Column, family: str, seed: int, key: str) -> float | None:
    """Train and score one model; None if its loss became infinite."""
    build, rows = column.families[family], column.parts(seed)
    limit, rate = {"max_steps": 0}, column.rates[0]
    if family not in UNTRAINED:
        # The time of a step depends on the model and on the width, not on the rows.
        limit = experiment.time_limit(
            f"{family} on {column.coordinates} coordinates",
            build,
            rows[0],
            batch_size=column.batch_size,
            **column.limit,
        )
        rate = _rate(experiment, column, family, limit)
    return _trained(experiment, column, build, rows, key, seed, rate, limit, rows[2], 20)


def _rate(experiment: Experiment, column: Column, family: str, limit: dict[str, Any]) -> float:
    """The learning rate with the best held-out log-likelihood after a tenth of the time."""
    if len(column.rates) == 1 or experiment.budget == "smoke":
        return column.rates[0]
    rows = column.parts(0)
    tenth = {name: type(most)(most / 10) or 1 for name, most in limit.items()}

    def score(rate: float) -> float | None:
        key = f"equal time {column.name} {family} pilot {rate:g}"
        value = experiment.measure(
            f"{key} nats",
            partial(_trained, experiment, column, column.families[family], rows, key, 0, rate, tenth, rows[1], 4),
        )
        experiment.forget(key)
        return value

    return best_rate(column.rates, score)


def best_rate(rates: Sequence[float], score: Callable[[float], float | None], *, beyond: int = 0) -> float:
    """The learning rate with the highest score on held-out rows; None is the score of a training that diverged.

    While the best is the smallest or the largest of those tried, the next one beyond it is tried too, at most ``beyond`` times.
    """
    found = {rate: -math.inf if (value := score(rate)) is None else value for rate in rates}
    for _ in range(beyond):
        ordered, best = sorted(found), max(found, key=found.__getitem__)
        if len(ordered) < 2 or best not in (ordered[0], ordered[-1]):
            break
        ratio = ordered[-1] / ordered[-2] if best == ordered[-1] else ordered[0] / ordered[1]
        further = float(f"{best * ratio:.0e}")
        found[further] = -math.inf if (value := score(further)) is None else value
    return max(found, key=found.__getitem__)


def _trained(
    experiment: Experiment, column: Column, build: Callable[[], Model], rows: Parts, key: str, seed: int, rate: float,
    limit: dict[str, Any], scored: Tensor, evaluations: int,
) -> float | None:  # fmt: skip
    """Mean log-likelihood in nats of ``scored`` rows after training; None if the loss became infinite."""
    every = max(1, limit["max_steps"] // evaluations) if "max_steps" in limit else None
    try:
        model, _ = experiment.train(
            key, build, rows[0], rows[1], seed=seed, learning_rate=rate, batch_size=column.batch_size, patience=None,
            evaluate_every=every, **limit,
        )  # fmt: skip
    except TrainingError as error:
        if not str(error).startswith("the loss is"):  # another mistake, such as a checkpoint of other settings
            raise
        experiment.say(f"{key}: {error}")
        experiment.forget(key)
        return None
    value = _score(model, scored, column)
    return value if math.isfinite(value) else None


def _score(model: Model, rows: Tensor, column: Column) -> float:
    if column.group == "images":
        draws = 8
        if isinstance(model, ImageIResNet):
            model.set_log_det("roulette")  # unbiased, where the series of its training is cut
        return -bits_per_dim(model, rows, batch=100, samples=draws) * column.coordinates * math.log(2)
    if isinstance(model, IResNet):
        model.set_log_det("exact")
    draws = 64 if isinstance(model, VAE) else 1
    with torch.no_grad():
        values = [model.evaluate(part, samples=draws).value.double() for part in rows.split(2048)]
    return torch.cat(values).mean().item()


def gaps(cells: Mapping[str, Cell]) -> dict[str, tuple[float, float] | None]:
    """For each family its mean distance to the best family in nats, paired by seed, and the standard deviation of it.

    The best family has distance 0, and the standard deviation of its own log-likelihood. None where a training diverged.
    """
    whole: dict[str, list[float]] = {}
    for family, cell in cells.items():
        values = [value for value in cell if value is not None]
        if len(values) == len(cell):
            whole[family] = values
    if not whole:
        return dict.fromkeys(cells)
    best = max(whole, key=lambda family: statistics.fmean(whole[family]))
    found: dict[str, tuple[float, float] | None] = dict.fromkeys(cells)
    for family, values in whole.items():
        distance = [theirs - top for theirs, top in zip(values, whole[best], strict=True)]
        own = values if family == best else distance
        found[family] = statistics.fmean(distance), statistics.stdev(own) if len(own) > 1 else 0.0
    return found


def ranks(cells: Mapping[str, Cell]) -> dict[str, int]:
    """The rank of each family by its mean, 1 for the best; a family whose training diverged shares the last rank."""
    distance = gaps(cells)
    order = sorted((found for found in distance.values() if found is not None), reverse=True)
    means = [mean for mean, _ in order]
    return {
        family: len(cells) if found is None else 1 + sum(mean > found[0] for mean in means)
        for family, found in distance.items()
    }


def draw(experiment: Experiment, columns: Sequence[Column], found: Mapping[str, Mapping[str, Cell]], name: str) -> None:
    """A heat map: families by columns, colored by the distance to the best in nats a coordinate, with distance and spread as text.

    Distances are in nats for vectors and in bits/dim for images. Families are in the order of their mean rank.
    """
    from matplotlib.colors import LogNorm

    order = sorted(
        {family for cells in found.values() for family in cells}, key=lambda family: _mean_rank(found, family)
    )
    figure = experiment.figure(2.2 + 1.15 * len(columns), 1 + 0.3 * len(order))
    axes = figure.subplots()
    low, high = 1e-3, 3.0
    shade = torch.full((len(order), len(columns)), math.nan)
    for j, column in enumerate(columns):
        unit = math.log(2) * column.coordinates if column.group == "images" else 1.0
        for family, value in gaps(found[column.name]).items():
            i = order.index(family)
            if value is None:
                axes.text(j, i, "diverged", ha="center", va="center", fontsize=7)
                continue
            color = min(max(-value[0] / column.coordinates, low), high)
            shade[i, j] = color
            best = statistics.fmean([each for each in found[column.name][family] if each is not None])
            shown = -best if column.group == "images" and value[0] == 0 else best if value[0] == 0 else value[0]
            digits = 3 if column.group == "images" else 2
            axes.text(
                j, i, f"{shown / unit:.{digits}f} ± {value[1] / unit:.{digits}f}", ha="center", va="center", fontsize=7,
                color="white" if color > 0.1 else "black", weight="bold" if value[0] == 0 else "normal",
            )  # fmt: skip
    image = axes.imshow(shade.numpy(), aspect="auto", cmap="viridis_r", norm=LogNorm(low, high))
    axes.set_title("log-likelihood minus the best, nats (images: bits/dim); bold: the best itself", fontsize=8)
    axes.set_xticks(range(len(columns)), [column.name for column in columns], rotation=30, ha="right", fontsize=8)
    axes.set_yticks(range(len(order)), order, fontsize=8)
    figure.colorbar(image, ax=axes, label="distance to the best, nats a coordinate")
    experiment.picture(name, figure)


def _mean_rank(found: Mapping[str, Mapping[str, Cell]], family: str) -> float:
    """The mean over the columns that have the family of its rank, as a fraction of their number of families."""
    return statistics.fmean(ranks(cells)[family] / len(cells) for cells in found.values() if family in cells)
