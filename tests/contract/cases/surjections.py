"""Surjections, stochastic transforms, funnels, and autoencoders within flows."""

from __future__ import annotations

from typing import Any

from torch import Generator, Tensor

from pushforward import distributions, models, transforms
from pushforward.likelihood import Counting, Extended, Kind, Lebesgue

from .kinds import SPLINE, DistributionCase, ModelCase, TransformCase, b, f, flow, integers, m, normal, positive

S = (8,)
NARROW: dict[str, Any] = {"hidden": (8,)}
SURJECTIVE: dict[str, Any] = {"invertible": False, "draws": True}


def increasing(shape: tuple[int, ...], generator: Generator) -> Tensor:
    return normal(shape, generator).sort(-1).values


def onto(dim: int, data: int, **more: Any) -> dict[str, Any]:
    """A transform that is not a bijection, from Lebesgue(data) to Lebesgue(dim)."""
    return {"latent_measure": Lebesgue(dim), "data_measure": Lebesgue(data), "bijective": False, **more}


TRANSFORMS: list[TransformCase] = [
    m(
        "Slice",
        "indices, spline",
        lambda: transforms.Slice(3, (2,), transforms.Monotone(2, SPLINE, context=1, hidden=S)),
        **onto(1, 3),
    ),
    m("Slice", "normal", lambda: transforms.Slice(4, 2, hidden=S), **onto(2, 4)),
    m("Augment", "normal", lambda: transforms.Augment(2, 1, hidden=S), **onto(3, 2, kind=Kind.LOWER_BOUND)),
    m("Abs", "fixed", lambda: transforms.Abs((1, 2, 2), probability=0.3), bijective=False),
    m("Abs", "learned", lambda: transforms.Abs(2, hidden=S), bijective=False),
    m("Sort", "uniform", lambda: transforms.Sort(3), bijective=False),
    m("Sort", "learned", lambda: transforms.Sort(3, hidden=S), bijective=False),
    m("Gaps", "D=3", lambda: transforms.Gaps(3), increasing),
    m(
        "StochasticPermutation",
        "D=5",
        lambda: transforms.StochasticPermutation(5),
        kind=Kind.LOWER_BOUND,
        bijective=False,
    ),
    m("Max", "K=3", lambda: transforms.Max(3, hidden=S), **onto(1, 3)),
    m(
        "Funnel",
        "spline, context",
        lambda: transforms.Funnel(4, (3, 1), SPLINE, hidden=S, decoder_hidden=S, context=2),
        **onto(2, 4),
    ),
    m(
        "Funnel",
        "dense, flow",
        lambda: transforms.Funnel(
            3, 1, transforms.AdditiveTransformer(), transforms.Monotone(2, SPLINE, context=1, hidden=S), hidden=()
        ),
        **onto(1, 3),
    ),
    m(
        "ImageFunnel",
        "spline",
        lambda: transforms.ImageFunnel((3, 2, 2), 2, SPLINE, hidden=S, decoder_hidden=S),
        **onto(8, 12),
    ),
    m("ConvFunnel", "two channels", lambda: transforms.ConvFunnel((2, 4, 2), hidden=S), **onto(4, 16)),
    m("ConvFunnel", "window of 3", lambda: transforms.ConvFunnel((1, 3, 3), 3, hidden=S), **onto(1, 9)),
    m(
        "Autoencode",
        "vector, flow",
        lambda: transforms.Autoencode(
            4, 2, transforms.Inverse(transforms.MaskedAutoregressive(2, hidden=S)), core=(3, 1), hidden=S
        ),
    ),
    m("Autoencode", "color, dense", lambda: transforms.Autoencode((2, 3, 2), 4, hidden=S)),
    m("Autoencode", "image, convolutions", lambda: transforms.Autoencode((2, 3, 3), 2, core="corner", channels=(4,))),
    m(
        "LinearAutoencode",
        "extended",
        lambda: transforms.LinearAutoencode(3, 2, hidden=S),
        latent_measure=Lebesgue(5),
        data_measure=Extended(5, 3),
        bijective=False,
    ),
    m(
        "LinearAutoencode",
        "drawn",
        lambda: transforms.LinearAutoencode((1, 2, 2), 1, scale=0.5, channels=(4,)),
        **onto(5, 4, kind=Kind.LOWER_BOUND),
    ),
    m("MaxPool", "two channels", lambda: transforms.MaxPool((2, 4, 2), hidden=S), **onto(4, 16)),
]

# Their quadrature is in tests/distributions: their domains are a half-space, and on a cone.
DISTRIBUTIONS: list[DistributionCase] = [
    b("HalfNormal", "D=2", lambda: distributions.HalfNormal(2), positive, measure=Lebesgue(2)),
    b(
        "Product",
        "normal, logistic",
        lambda: distributions.Product(distributions.Normal(1, trainable=True), distributions.Logistic(1)),
    ),
    b("SortedNormal", "D=3", lambda: distributions.SortedNormal(3), increasing, measure=Lebesgue(3)),
]

MODELS: list[ModelCase] = [
    f("Flow", "abs, half-normal", flow(lambda: transforms.Abs(2, hidden=S), lambda: distributions.HalfNormal(2)), **SURJECTIVE),
    f("Flow", "sort, gaps",
      flow(lambda: transforms.Sort(2, hidden=S), lambda: transforms.Gaps(2), lambda: transforms.Coupling(2, hidden=S), lambda: distributions.Normal(2)),
      **SURJECTIVE),
    f("Flow", "slice, D=2", flow(lambda: transforms.Coupling(2, hidden=S), lambda: transforms.Slice(2, hidden=S), lambda: distributions.Normal(1)),
      **SURJECTIVE),
    f("Flow", "max, K=2", flow(lambda: transforms.Max(2, hidden=S), lambda: distributions.Normal(1)), **SURJECTIVE),
    f("Flow", "max pool", flow(lambda: transforms.MaxPool((1, 2, 2), SPLINE, hidden=S), lambda: distributions.Normal((1, 1, 1))),
      **SURJECTIVE),
    f("Flow", "augment", flow(lambda: transforms.Augment(1, hidden=S), lambda: transforms.Coupling(2, hidden=S), lambda: distributions.Normal(2)),
      kind=Kind.LOWER_BOUND, **SURJECTIVE),
    f("FunnelFlow", "D=2", lambda: models.FunnelFlow(2, layers=2, funnel_layer=1, bins=4, **NARROW), **SURJECTIVE),
    f("FunnelFlow", "mlp, spline decoder, D=2",
      lambda: models.FunnelFlow(2, funnel="mlp", layers=2, bins=4, decoder="spline", decoder_layers=2, **NARROW),
      **SURJECTIVE),
    f("FunnelFlow", "affine, context, D=5",
      lambda: models.FunnelFlow(5, 2, latent=2, transformer="affine", layers=3, funnel_layer=1, **NARROW), **SURJECTIVE),
    f("ImageFunnelFlow", "coupling",
      lambda: models.ImageFunnelFlow(shape=(1, 4, 4), transformer="affine", layers=1, levels=8, **NARROW), integers(8),
      kind=Kind.LOWER_BOUND, measure=Counting(16), **SURJECTIVE),
    f("ImageFunnelFlow", "conv, context",
      lambda: models.ImageFunnelFlow(shape=(1, 4, 4), context=2, funnel="conv", transformer="affine", layers=1, levels=8, **NARROW),
      integers(8), kind=Kind.LOWER_BOUND, measure=Counting(16), **SURJECTIVE),
    f("AEF", "D=2", lambda: models.AEF(2, latent=1, hidden=S)),
    f("AEF", "nsf, prior", lambda: models.AEF(4, latent=2, posterior="nsf", posterior_layers=1, posterior_hidden=S, hidden=S,
                                              prior=models.NICE(2, layers=2, hidden=S, standardize=False))),
    f("AEF", "image, iaf, convolutions",
      lambda: models.AEF((1, 3, 3), 2, levels=4, posterior="iaf", posterior_layers=1, posterior_hidden=S, channels=(4,)), integers(4),
      kind=Kind.LOWER_BOUND, measure=Counting(9)),
]  # fmt: skip
