"""Flows of constant volume on several data sets: which sets they find likelier, and what the moments of the data predict.

For the reproduction of Nalisnick et al. 2019, whose sec. 5 explains the likelihoods of such flows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from papers.experiment import Experiment, spread
from pushforward.detection import auroc
from pushforward.detection.curvature import graying, second_order_gap
from pushforward.detection.without_preprocessing import WithoutPreprocessing, differentiable
from pushforward.distributions import Distribution, Logistic, Normal, StudentT
from pushforward.models import Flow, Glow, Model
from pushforward.plot import COLORS
from pushforward.transforms import Affine, Chain, Standardize
from pushforward.transforms.base import Shape

__all__ = [
    "BASES",
    "CONCAVE",
    "GRAYED",
    "HEAVY",
    "NORMAL",
    "REFITTED",
    "ImageSets",
    "Variant",
    "altered",
    "constant_volume_flow",
    "diagonal_curvature",
    "draw_gaps",
    "log_likelihoods",
    "rank_correlation",
    "report_summary",
    "run_variant",
    "swap_bases",
]

Values = dict[str, Any]

BASES: dict[str, Callable[[int], Distribution]] = {
    "constant-volume flow": lambda features: StudentT(features, 1.0, trainable_df=True),
    "constant-volume flow, logistic base": Logistic,
    "constant-volume flow, normal base": Normal,
}
"""Bases of a flow of additive couplings and one diagonal scaling, as in NICE; the first has the heaviest tails."""
HEAVY, CONCAVE, NORMAL = BASES

REFITTED: dict[str, Callable[[int], Distribution]] = {
    "Student-t, df 1": lambda features: StudentT(features, 1.0),
    "df 2": lambda features: StudentT(features, 2.0),
    "df 4": lambda features: StudentT(features, 4.0),
    "df 16": lambda features: StudentT(features, 16.0),
    "normal": Normal,
}
"""Bases that are fitted to the latents of trained layers, from the heaviest tails to the lightest."""

GRAYED = tuple(round(0.1 * k, 1) for k in range(10))
"""Fractions of gray of the curves of sec. 5."""


@dataclass(frozen=True)
class ImageSets:
    """The images of a variant.

    Attributes:
        name: of the set that the flows are trained on.
        train: training images.
        held_out: images that choose the weights.
        test: test images.
        others: other data by name.
        likelier: name of the other set that the theory should find likelier, by its variances.
    """

    name: str
    train: Tensor
    held_out: Tensor
    test: Tensor
    others: Mapping[str, Tensor]
    likelier: str


@dataclass(frozen=True)
class Variant:
    """A flow of constant volume, the images and the options of its training.

    Attributes:
        name: what it is, for the findings.
        sets: images.
        make: function that makes the flow.
        options: options of ``Experiment.train``.
    """

    name: str
    sets: ImageSets
    make: Callable[[], Model]
    options: Mapping[str, Any]


def constant_volume_flow(shape: Shape, base: Callable[[int], Distribution], **sizes: Any) -> Flow:
    """Glow with additive couplings and one diagonal scaling; ``sizes`` are arguments of ``Glow``.

    Its pixels are dequantized and shifted to (-1/2, 1/2), without a logit, so the volume is constant in the pixels too.
    """
    # No channels are factored out, because their learned prior would make the volume depend on the input.
    glow = Glow(shape, alpha=None, affine=False, factor_out=False, **sizes)
    features = math.prod(glow.shape)
    return Flow(Chain(glow.chain, Affine(features, trainable=True)), base(features))


def altered(images: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """Six other data sets from these images: grayed, shuffled, inverted, upside down, and noise instead of them."""
    draw = torch.Generator().manual_seed(seed)
    order = torch.rand(len(images), images[0].numel(), generator=draw).argsort(1)
    mean = images.double().mean(0)
    return {
        "grayed by half": graying(images, 0.5, mean),
        "grayed by three quarters": graying(images, 0.75, mean),
        "shuffled pixels": images.flatten(1).gather(1, order).reshape(images.shape),
        "inverted": 255 - images,
        "upside down": images.flip(-2),
        "uniform noise": torch.randint(256, images.shape, generator=draw, dtype=torch.uint8),
    }


@torch.no_grad()
def log_likelihoods(model: Model, images: Tensor) -> Tensor:
    """log p of each image, nats, float64."""
    return torch.cat([model.evaluate(part).value.double() for part in images.split(250)])


def diagonal_curvature(model: Model, at: Tensor, *, batch_size: int = 256) -> Tensor:
    """The diagonal of the Hessian of log p(y) at the point y0, which is after the preprocessing; float64, ``(D,)``.

    For a flow of constant volume with a base whose log-density is concave, and piecewise linear networks, no entry is positive.
    """
    inner, features = WithoutPreprocessing(model), at.numel()
    found = []
    for rows in torch.eye(features, dtype=model.dtype).split(batch_size):
        unit = rows.reshape(len(rows), *at.shape)
        with differentiable(at.to(model.dtype).expand_as(unit)) as point:
            (slope,) = torch.autograd.grad(inner(point).sum(), point, create_graph=True)
            product = torch.zeros_like(point)
            if slope.requires_grad:
                (product,) = torch.autograd.grad((slope * unit).sum(), point, allow_unused=True, materialize_grads=True)
        found.append((product * unit).flatten(1).sum(1).detach().double())
    return torch.cat(found)


def _preprocessed(model: Model, images: Tensor) -> Tensor:
    inner = WithoutPreprocessing(model)
    return torch.cat([inner.preprocess(part)[0] for part in images.split(250)]).double()


def measure_gaps(model: Model, test: Tensor, others: Mapping[str, Tensor]) -> dict[str, dict[str, float]]:
    """For each other set the observed gap of the mean log-likelihoods, and predictions of it, in nats.

    "mean" expands at the mean image. "constant" expands at the image whose pixels all have the mean of their channel. "variances"
    takes from the former only the diagonal of the Hessian and the variances of the pixels, as the paper does, which assumes equal
    means and no correlations.
    """
    reference = _preprocessed(model, test)
    at = reference.mean(0)
    # Of the coordinates (channels, height, width), before the first squeeze.
    constant = at.mean((-2, -1), keepdim=True).expand_as(at)
    curvature = diagonal_curvature(model, at)
    negative = (curvature <= 0).double().mean().item()
    found = {}
    for name, images in others.items():
        gap = second_order_gap(model, test, images)
        flat = second_order_gap(model, test, images, at=constant)
        change = (_preprocessed(model, images).var(0) - reference.var(0)).flatten()
        found[name] = {
            "observed": gap.observed, "error": gap.observed_error, "mean": gap.predicted, "constant": flat.predicted,
            "variances": 0.5 * (curvature @ change).item(), "negative": negative,
        }  # fmt: skip
    return found


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's rank correlation of values without ties."""
    ranks = [np.argsort(np.argsort(values)) for values in (a, b)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _bits(model: Model, log_p: Tensor) -> float:
    return -log_p.mean().item() / (math.prod(model.shape) * math.log(2))


def _measured(variant: Variant, model: Model) -> Values:
    """Everything that the findings say of a trained flow."""
    sets = variant.sets
    test, other = (log_likelihoods(model, images) for images in (sets.test, sets.others[sets.likelier]))
    mean = sets.test.double().mean(0)
    return {
        "auroc": auroc(-test.numpy(), -other.numpy()),
        "bits": [_bits(model, test), _bits(model, other)],
        "gaps": measure_gaps(model, sets.test, sets.others),
        "gray": {
            name: [log_likelihoods(model, graying(images, t, mean)).mean().item() for t in GRAYED]
            for name, images in ((sets.name, sets.test), (sets.likelier, sets.others[sets.likelier]))
        },
    }


def _signs(gaps: Mapping[str, Mapping[str, float]], which: str = "mean") -> tuple[int, int]:
    """The number of gaps with the predicted sign, and of those that count: by more than two standard errors different from 0."""
    clear = [gap for gap in gaps.values() if abs(gap["observed"]) > 2 * gap["error"]]
    return sum(np.sign(gap[which]) == np.sign(gap["observed"]) for gap in clear), len(clear)


def _predicted(gaps: Mapping[str, Mapping[str, float]]) -> bool:
    """Whether all signs are right, and the order."""
    right, clear = _signs(gaps)
    return 0 < right == clear and rank_correlation(_column(gaps, "mean"), _column(gaps, "observed")) > 0.9


def run_variant(experiment: Experiment, variant: Variant) -> list[Values]:
    """Train and measure a variant with each seed, and report inversion, prediction, its simpler forms, and graying."""
    sets, found = variant.sets, []
    for seed in experiment.few(1):
        key = f"{variant.name} {seed}"

        def run(key: str = key, seed: int = seed) -> Values:
            model, _ = experiment.train(
                key, variant.make, sets.train, sets.held_out, seed=seed, patience=None, **variant.options
            )
            return _measured(variant, model)

        found.append(experiment.measure(f"{key} measured", run))
    gaps = [values["gaps"] for values in found]
    areas = [values["auroc"] for values in found]
    inverted = all(gap[sets.likelier]["observed"] > 0 for gap in gaps) and max(areas) < 0.3
    experiment.report(
        f"{variant.name}: it gives {sets.likelier} a higher likelihood than test images",
        ours=f"AUROC of -log p {spread(areas)}; {spread([values['bits'][0] for values in found], 2)} and "
        f"{spread([values['bits'][1] for values in found], 2)} bits/dim on {sets.name} and {sets.likelier}",
        confirmed=inverted,
        seeds=len(found),
        note="criterion: below 0.3, and the higher mean",
    )
    ranks = [rank_correlation(_column(gap, "mean"), _column(gap, "observed")) for gap in gaps]
    predicted = all(map(_predicted, gaps))
    experiment.report(
        f"{variant.name}: two moments of the data and one Hessian predict the sign and the order of the gaps (sec. 5)",
        ours=f"correct sign in {_each(map(_signs, gaps))} clear gaps of {len(sets.others)} data sets, rank correlation {spread(ranks, 2)}; "
        + ", ".join(f"{name} {gap['mean']:+.0f} for {gap['observed']:+.0f}" for name, gap in gaps[0].items()),
        confirmed=predicted,
        seeds=len(found),
        note="nats, predicted for observed, first seed; expansion at the mean image; criteria: all signs of gaps that differ from 0 by more "
        "than two standard errors over images, and a rank correlation of all gaps above 0.9",
    )
    alone, flat = ([_signs(gap, which) for gap in gaps] for which in ("variances", "constant"))
    shares = [next(iter(gap.values()))["negative"] for gap in gaps]
    experiment.report(
        f"{variant.name}: the variances of the pixels alone predict the sign, because no curvature is positive",
        ours=f"correct sign in {_each(alone)} clear gaps; {min(shares):.1%} of the diagonal of the Hessian is not positive; "
        + ", ".join(f"{name} {gap['variances']:+.0f}" for name, gap in gaps[0].items()),
        confirmed=all(right == clear for right, clear in alone) and min(shares) > 0.999,
        seeds=len(found),
        note="nats predicted by the variances, first seed: as in sec. 5, where the means are equal and pixels uncorrelated; "
        f"with means and covariances, but expanded at one gray for all pixels, {_each(flat)} signs are correct",
    )
    smallest = min(np.diff(curve).min() for values in found for curve in values["gray"].values())
    experiment.report(
        f"{variant.name}: graying makes images likelier, including those like the training data (fig. 5)",
        ours=", ".join(f"{name} from {curve[0]:.0f} to {curve[-1]:.0f} nats" for name, curve in found[0]["gray"].items())
        + f"; smallest rise of a step {smallest:+.1f}",
        confirmed=float(smallest) > 0,
        seeds=len(found),
        note="(1 - t) x + t times the mean image, t = 0, 0.1, ..., 0.9",
    )  # fmt: skip
    return [{**values, "inverted": inverted, "predicted": predicted} for values in found]


def _column(gaps: Mapping[str, Mapping[str, float]], name: str) -> list[float]:
    return [gap[name] for gap in gaps.values()]


def _each(counts: Iterable[tuple[int, int]]) -> str:
    """Right of clear, for each seed."""
    return ", ".join(f"{right} of {clear}" for right, clear in counts)


def draw_gaps(
    axes: Any, title: str, names: Iterable[str], predicted: Iterable[float], observed: Iterable[float],
    order: Sequence[str] | None = None,
) -> None:  # fmt: skip
    """Predicted and observed gaps on symmetric logarithmic axes with few ticks, one marker for each data set.

    The place of a name in ``order``, by default in ``names``, chooses its marker and color.
    """
    axes.axline((0, 0), slope=1, color="0.8", zorder=0)
    names = list(names)
    for name, x, y in zip(names, predicted, observed, strict=True):
        k = (order or names).index(name)
        axes.plot(x, y, "os^vDP*X<>d"[k % 11], color=COLORS[k % len(COLORS)], label=name, markersize=6, alpha=0.8)
    axes.set_title(title, fontsize=8)
    axes.set(xlabel="predicted gap, nats", ylabel="observed gap, nats", xscale="symlog", yscale="symlog")
    limits, ticks = (axes.get_xlim(), axes.get_ylim()), [-1e6, -1e4, -1e2, 0.0, 1e2, 1e4]
    axes.set(xticks=ticks, yticks=ticks)
    axes.set(xlim=limits[0], ylim=limits[1])


def report_summary(experiment: Experiment, results: Mapping[str, Sequence[Values]]) -> None:
    """Report which variants show both the inversion and the right prediction, and draw predicted against observed gaps."""
    both = [name for name, found in results.items() if all(v["inverted"] and v["predicted"] for v in found)]
    experiment.report(
        "one constant-volume flow shows the inversion and the prediction of all gaps",
        ours=f"both: {'; '.join(both) or 'none'}. "
        + "; ".join(
            f"{name}: {'inverted' if found[0]['inverted'] else 'not inverted'}, "
            f"{'predicted' if found[0]['predicted'] else 'not predicted'}"
            for name, found in results.items()
        ),
        confirmed=bool(both),
        seeds=min(map(len, results.values())),
        note="by the criteria of the findings above, with every seed",
    )
    figure = experiment.figure(3.6 * len(results), 4.2)
    order = list(dict.fromkeys(other for found in results.values() for other in found[0]["gaps"]))
    shown: dict[str, Any] = {}  # of all panels, because not all have the same data sets
    for axes, (name, found) in zip(np.atleast_1d(figure.subplots(1, len(results))), results.items(), strict=True):
        gaps = found[0]["gaps"]
        draw_gaps(axes, name, gaps, _column(gaps, "mean"), _column(gaps, "observed"), order)
        shown |= {line.get_label(): line for line in axes.lines if line.get_label() in order}
    figure.legend([shown[other] for other in order], order, loc="outside lower center", ncols=4, fontsize=7)
    experiment.picture("variants", figure)


def swap_bases(
    experiment: Experiment,
    flows: Mapping[str, Callable[[], Model]],
    train: Tensor,
    test: Tensor,
    others: Mapping[str, Tensor],
    *,
    steps: int,
) -> dict[str, dict[str, Values]]:
    """Keep the layers of trained flows, fit other bases with a diagonal scaling to their latents, and compare the areas.

    If the tails of the base decide which set is likelier, the area changes with the base and not with the layers.

    Args:
        experiment: the run.
        flows: functions that return trained flows of ``constant_volume_flow``, by name.
        train: images that bases are fitted to.
        test: test images.
        others: other data; areas are those of the first.
        steps: of a fit.

    Returns:
        For each flow and base the "auroc", and the "gaps" of each other set: observed with its error, and predicted, in nats.
    """  # fmt: skip
    first = next(iter(others))
    found: dict[str, dict[str, Values]] = {}
    for name, read in flows.items():

        def refit(name: str = name, read: Callable[[], Model] = read) -> dict[str, Values]:
            flow = read()
            layers = Flow(flow.chain[:-1], Normal(flow.base.shape))
            with torch.no_grad():
                latents = torch.cat([layers.encode(part) for part in train.split(250)])
            return {base: _refitted(experiment, f"{base} for {name}", layers, make, latents, test, others, steps)
                    for base, make in REFITTED.items()}  # fmt: skip

        found[name] = experiment.measure(f"bases for the layers of the {name}", refit)
    table = np.array([[found[name][base]["auroc"] for base in REFITTED] for name in found])
    by_base, by_layers = np.ptp(table, 1), np.ptp(table, 0)
    experiment.report(
        "(ours) with the same trained layers the base decides which set is likelier",
        ours=f"AUROC on {first} with the bases {', '.join(REFITTED)}: "
        + "; ".join(f"layers of the {name} " + ", ".join(f"{area:.3f}" for area in row) for name, row in zip(found, table, strict=True)),
        confirmed=bool(by_base.min() > by_layers.max()) and bool((np.diff(table, axis=1) > 0).all()),
        seeds=1,
        note="a base with a diagonal scaling is fitted to the latents of training images, the layers stay; confirmed if for all layers the "
        f"area grows as the tails get lighter, by more (here at least {by_base.min():.3f}) than it differs between layers with one base "
        f"(here at most {by_layers.max():.3f})",
    )  # fmt: skip
    cells = {f"{base} on the layers of the {name}": cell for name, row in found.items() for base, cell in row.items()}
    both = {name: cell for name, cell in cells.items() if cell["auroc"] < 0.3 and _predicted(cell["gaps"])}
    named = sum(gap["observed"] > 0 and gap["mean"] > 0 for gap in (cell["gaps"][first] for cell in cells.values()))
    experiment.report(
        f"(ours) some base on trained layers inverts {first} and has all gaps predicted",
        ours=f"{'; '.join(both) or 'none'} of {len(cells)} pairs of layers and base; "
        + "; ".join(
            f"{name} {cell['auroc']:.3f}, {_each([_signs(cell['gaps'])])} signs" for name, cell in cells.items()
        ),
        confirmed=bool(both),
        seeds=1,
        note=f"criteria: an AUROC below 0.3 on {first}, all signs of clear gaps, and a rank correlation above 0.9; {first} has the higher mean, and it is "
        f"predicted, with {named} pairs",
    )
    return found


def _refitted(
    experiment: Experiment, key: str, layers: Model, make: Callable[[int], Distribution], latents: Tensor, test: Tensor,
    others: Mapping[str, Tensor], steps: int,
) -> Values:  # fmt: skip
    features = latents.shape[1]

    def build() -> Model:
        return Flow(Chain(Standardize(features), Affine(features, trainable=True)), make(features))

    top, _ = experiment.train(
        key, build, latents, None, max_steps=steps, batch_size=256, learning_rate=1e-2, patience=None
    )
    whole = Flow(Chain(layers.chain, top.chain), top.base)
    experiment.forget(key)
    surprise = [-log_likelihoods(whole, images).numpy() for images in (test, next(iter(others.values())))]
    gaps = {name: second_order_gap(whole, test, images) for name, images in others.items()}
    named = {
        name: {"observed": gap.observed, "error": gap.observed_error, "mean": gap.predicted}
        for name, gap in gaps.items()
    }
    return {"auroc": auroc(*surprise), "gaps": named}
