"""What the contract tests run over: for every registered class, ways to build it and legal data for it.

A class without a case fails ``test_coverage.py``. To add one, append a case below; flags say where a property cannot
hold, each with its reason. Everything else is checked of every case.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor

from pushforward import bases, maps, models, networks
from pushforward.errors import KindWarning
from pushforward.measure import Counting, Measure, Mixed, Relation
from pushforward.models.core import Model

Draw = Callable[[tuple[int, ...], Generator], Tensor]


def normal(shape: tuple[int, ...], generator: Generator) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def unit(shape: tuple[int, ...], generator: Generator) -> Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=generator)


def signed_unit(shape: tuple[int, ...], generator: Generator) -> Tensor:
    return 2 * unit(shape, generator) - 1


def positive(shape: tuple[int, ...], generator: Generator) -> Tensor:
    return normal(shape, generator).exp()


def angles(shape: tuple[int, ...], generator: Generator) -> Tensor:
    return math.pi * signed_unit(shape, generator)


def integers(levels: int) -> Draw:
    return lambda shape, generator: torch.randint(levels, shape, generator=generator).double()


def shifted(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Data in units of their own, so that standardisation has something to do."""
    return 2 * normal(shape, generator) + 3


def lattice(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """First column real, the others on the lattice 0.5 + 0.25 k."""
    x = normal(shape, generator)
    x[..., 1:] = 0.5 + 0.25 * torch.floor(4 * x[..., 1:])
    return x


def with_missing(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Value, indicator of a missing value (the value is then 0), and a plain column."""
    x = normal(shape, generator)
    x[..., 1] = (x[..., 1] > 0).double()
    x[..., 0] = torch.where(x[..., 1] > 0.5, 0.0, x[..., 0])
    return x


@dataclass(frozen=True, eq=False)
class Case:
    """One way to build a registered class.

    Attributes:
        name: registered name.
        label: what is special about it.
        make: builds it.
        data: legal data of unit spread, float64, in a given shape.
    """

    name: str
    label: str
    make: Callable[[], Any]
    data: Draw = normal

    def __str__(self) -> str:
        return f"{self.name.split('.')[1]}[{self.label}]"


@dataclass(frozen=True, eq=False)
class MapCase(Case):
    """A map.

    Attributes:
        relation: of its contribution.
        data_measure: of the data, where the latent density is on Lebesgue(D); None for Lebesgue(D).
        reach: largest coordinate that survives a round trip, by type.
        bijective: whether encode has an inverse and a Jacobian.
        casts: whether it changes the floating type.
    """

    relation: Relation = Relation.EXACT
    data_measure: Measure | None = None
    reach: dict[torch.dtype, float] = field(default_factory=dict)
    bijective: bool = True
    casts: bool = False


@dataclass(frozen=True, eq=False)
class BaseCase(Case):
    """A base.

    Attributes:
        bounded: whether the log-density is finite and the same everywhere inside, so that it has no gradient.
    """

    bounded: bool = False


@dataclass(frozen=True, eq=False)
class ModelCase(Case):
    """A model.

    Attributes:
        relation: of its likelihood.
        measure: None for Lebesgue(D).
        fast: the direction that takes one pass.
        invertible: whether decode(encode(x)) is x.
    """

    relation: Relation = Relation.EXACT
    measure: Measure | None = None
    fast: str = "both"
    invertible: bool = True


def silently(make: Callable[[], Any]) -> Callable[[], Any]:
    """A constructor that warns, as it should, that its likelihood is a bound only."""

    def build() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", KindWarning)
            return make()

    return build


H = {"hidden": (16, 16)}
SPLINE = maps.SplineTransformer(bins=5, bound=3.0)
CIRCLE = maps.CircularSplineTransformer(bins=5)
# exp leaves the range of the type beyond these.
EXP_REACH = {torch.float32: 80.0, torch.float64: 600.0}
# SoftTail decodes by sinh, which it bounds at asinh(1e30) = 69 widths of 3.
SINH_REACH = {torch.float32: 50.0, torch.float64: 50.0}


def m(name: str, label: str, make: Callable[[], Any], data: Draw = normal, **more: Any) -> MapCase:
    return MapCase(f"maps.{name}", label, make, data, **more)


MAPS: list[MapCase] = [
    *(m("Affine", f"D={d}", lambda d=d: maps.Affine(d, shift=0.5, scale=-2.0)) for d in (1, 5)),
    m("Affine", "trainable, image", lambda: maps.Affine((2, 3, 2), scale=0.3, trainable=True)),
    m("Affine", "per feature", lambda: maps.Affine(2, shift=(1.0, -1.0), scale=(-0.1, 10.0), trainable=True)),
    *(m("Sigmoid", f"D={d}", lambda d=d: maps.Sigmoid(d)) for d in (1, 2)),
    m("Logit", "alpha=0", lambda: maps.Logit(2), unit),
    m("Logit", "alpha=0.05", lambda: maps.Logit(2, alpha=0.05), unit),
    m("Logit", "alpha=1e-6, image", lambda: maps.Logit((1, 2, 2), alpha=1e-6), unit),
    *(m("Tanh", f"D={d}", lambda d=d: maps.Tanh(d)) for d in (1, 5)),
    *(m("Softplus", f"D={d}", lambda d=d: maps.Softplus(d)) for d in (1, 5)),
    *(m("Exp", f"D={d}", lambda d=d: maps.Exp(d), reach=EXP_REACH) for d in (1, 5)),
    *(m("SoftTail", f"w={w}", lambda w=w: maps.SoftTail(2, width=w)) for w in (0.5, 3.0)),
    *(m("Standardize", f"robust={r}", lambda r=r: maps.Standardize(2, robust=r), shifted) for r in (False, True)),
    m("Standardize", "image", lambda: maps.Standardize((2, 2, 2)), shifted),
    m("Cast", "64 to 32", lambda: maps.Cast(2), casts=True),
    m("Cast", "32 to 64", lambda: maps.Cast(2, source="float32", target="float64"), casts=True),
    m("Jitter", "scoring", lambda: maps.Jitter(2, std=0.1)),
    m("Permutation", "drawn", lambda: maps.Permutation(5, seed=3)),
    m("Permutation", "D=1", lambda: maps.Permutation(1)),
    m("Permutation", "given, image", lambda: maps.Permutation((2, 3), order=(2, 0, 1))),
    *(m("Reverse", f"D={d}", lambda d=d: maps.Reverse(d)) for d in (1, 5)),
    *(m("LULinear", f"D={d}", lambda d=d: maps.LULinear(d)) for d in (1, 2, 5)),
    m("LULinear", "no bias", lambda: maps.LULinear(5, bias=False)),
    *(m("Householder", f"D={d}", lambda d=d: maps.Householder(d)) for d in (1, 2, 5)),
    m("Householder", "K=2", lambda: maps.Householder(5, reflections=2, seed=4)),
    *(m("ActNorm", f"D={d}", lambda d=d: maps.ActNorm(d), shifted) for d in (1, 5)),
    m("ActNorm", "image", lambda: maps.ActNorm((2, 3, 2)), shifted),
    *(m("BatchNorm", f"D={d}", lambda d=d: maps.BatchNorm(d), shifted) for d in (1, 5)),
    m("BatchNorm", "image, eps", lambda: maps.BatchNorm((2, 3, 2), eps=0.1), shifted),
    *(m("Planar", f"D={d}", lambda d=d: maps.Planar(d)) for d in (1, 2, 5)),
    *(m("Radial", f"D={d}", lambda d=d: maps.Radial(d)) for d in (1, 2, 5)),
    *(m("Sylvester", f"D={d}, M={r}", lambda d=d, r=r: maps.Sylvester(d, rank=r)) for d, r in ((1, 1), (2, 2), (5, 3))),
    # Couplings: every law, mask and option.
    *(m("Coupling", f"affine, D={d}", lambda d=d: maps.Coupling(d, **H)) for d in (1, 2, 5)),
    m("Coupling", "additive", lambda: maps.Coupling(5, maps.AdditiveTransformer(), flip=True, **H)),
    m("Coupling", "gated", lambda: maps.Coupling(5, maps.GatedTransformer(), mask="halves", **H)),
    m("Coupling", "spline", lambda: maps.Coupling(5, SPLINE, mask=(4, 1), residual=True, **H)),
    m("Coupling", "spline, unconditional", lambda: maps.Coupling(5, SPLINE, unconditional=True, **H)),
    m("Coupling", "spline, context", lambda: maps.Coupling(2, SPLINE, context=3, **H)),
    m("Coupling", "affine, context, D=1", lambda: maps.Coupling(1, context=3, activation="tanh", **H)),
    m("Coupling", "circular", lambda: maps.Coupling(5, CIRCLE, context=1, unconditional=True, **H), angles),
    # Autoregressive maps: every law, order and option.
    *(m("MaskedAutoregressive", f"affine, D={d}", lambda d=d: maps.MaskedAutoregressive(d, **H)) for d in (1, 2, 5)),
    m(
        "MaskedAutoregressive",
        "additive, reverse",
        lambda: maps.MaskedAutoregressive(5, maps.AdditiveTransformer(), order="reverse", **H),
    ),
    m(
        "MaskedAutoregressive",
        "gated, order",
        lambda: maps.MaskedAutoregressive(5, maps.GatedTransformer(), order=(3, 0, 4, 1, 2), **H),
    ),
    m("MaskedAutoregressive", "spline", lambda: maps.MaskedAutoregressive(5, SPLINE, residual=True, **H)),
    m("MaskedAutoregressive", "spline, context", lambda: maps.MaskedAutoregressive(2, SPLINE, context=3, **H)),
    m("MaskedAutoregressive", "context, D=1", lambda: maps.MaskedAutoregressive(1, context=3, hidden=())),
    m(
        "MaskedAutoregressive",
        "circular",
        lambda: maps.MaskedAutoregressive(5, CIRCLE, order="reverse", context=1, **H),
        angles,
    ),
    *(m("Monotone", f"D={d}", lambda d=d: maps.Monotone(d)) for d in (1, 5)),
    m("Monotone", "spline, context", lambda: maps.Monotone(2, SPLINE, context=3, **H)),
    m("Monotone", "circular", lambda: maps.Monotone(2, CIRCLE), angles),
    m("Monotone", "affine, context", lambda: maps.Monotone(1, maps.AffineTransformer(), context=1, **H)),
    # Combinations.
    m("Chain", "of one", lambda: maps.Chain(maps.Affine(2, scale=3.0))),
    m(
        "Chain",
        "mixed, context",
        lambda: maps.Chain(
            maps.Standardize(5),
            maps.MaskedAutoregressive(5, SPLINE, context=2, **H),
            maps.Permutation(5),
            maps.LULinear(5),
            maps.Coupling(5, context=2, **H),
        ),
        shifted,
    ),
    m(
        "Chain",
        "nested, bounded data",
        lambda: maps.Chain(maps.Chain(maps.Permutation(2), maps.Logit(2)), maps.Planar(2), maps.Tanh(2)),
        unit,
    ),
    m("Inverse", "of Exp", lambda: maps.Inverse(maps.Exp(2)), positive),
    m("Inverse", "of Softplus", lambda: maps.Inverse(maps.Softplus(2)), positive),
    m("Inverse", "of Sigmoid", lambda: maps.Inverse(maps.Sigmoid(2)), unit),
    m("Inverse", "of Tanh", lambda: maps.Inverse(maps.Tanh(2)), signed_unit),
    m("Inverse", "of Logit", lambda: maps.Inverse(maps.Logit(2))),
    m("Inverse", "of MAF, context", lambda: maps.Inverse(maps.MaskedAutoregressive(5, context=2, **H))),
    m("Inverse", "of Coupling", lambda: maps.Inverse(maps.Coupling(2, SPLINE, **H))),
    m("Inverse", "of Planar", lambda: maps.Inverse(maps.Planar(2))),
    m("Inverse", "of Sylvester", lambda: maps.Inverse(maps.Sylvester(5, rank=3))),
    m("Inverse", "of Radial", lambda: maps.Inverse(maps.Radial(2))),
    m("Inverse", "of a Chain", lambda: maps.Inverse(maps.Chain(maps.LULinear(2), maps.SoftTail(2))), reach=SINH_REACH),
    # Stochastic maps: integers and missing values have no Jacobian.
    m(
        "UniformDequantize",
        "256 levels",
        lambda: maps.UniformDequantize(2),
        integers(256),
        relation=Relation.LOWER,
        data_measure=Counting(2),
        bijective=False,
    ),
    m(
        "UniformDequantize",
        "levels by column",
        lambda: maps.UniformDequantize(2, levels=(4, 5)),
        integers(4),
        relation=Relation.LOWER,
        data_measure=Counting(2),
        bijective=False,
    ),
    m(
        "UniformDequantize",
        "image",
        lambda: maps.UniformDequantize((1, 2, 2), levels=8),
        integers(8),
        relation=Relation.LOWER,
        data_measure=Counting(4),
        bijective=False,
    ),
    m(
        "LatticeDequantize",
        "two of three columns",
        lambda: maps.LatticeDequantize(3, columns=(1, 2), steps=0.25, origins=0.5),
        lattice,
        relation=Relation.LOWER,
        data_measure=Mixed(1, 2),
        bijective=False,
    ),
    m("LatticeDequantize", "no column", lambda: maps.LatticeDequantize(2, columns=())),
    m(
        "AugmentMissing",
        "one of three columns",
        lambda: maps.AugmentMissing(3, columns=(0,), indicators=(1,)),
        with_missing,
        relation=Relation.LOWER,
        bijective=False,
    ),
]


def b(name: str, label: str, make: Callable[[], Any], data: Draw = normal, **more: Any) -> BaseCase:
    return BaseCase(name if "." in name else f"bases.{name}", label, make, data, **more)


def pair(*, context: int = 0) -> tuple[Model, Model]:
    return (
        models.NICE(2, context=context, couplings=2, hidden=(16,)),
        models.NSF(2, context=context, flow_layers=2, bins=4, hidden_features=16, residual_blocks=1),
    )


BASES: list[BaseCase] = [
    *(b("Normal", f"D={d}", lambda d=d: bases.Normal(d)) for d in (1, 2)),
    b("Normal", "trainable", lambda: bases.Normal(2, trainable=True)),
    b("Normal", "image", lambda: bases.Normal((1, 2, 2), trainable=True)),
    *(b("Logistic", f"D={d}", lambda d=d: bases.Logistic(d)) for d in (1, 2)),
    b("Uniform", "D=1", lambda: bases.Uniform(1, low=-1.0, high=3.0), signed_unit, bounded=True),
    b("Uniform", "circle, D=2", lambda: bases.Uniform(2, -math.pi, math.pi), angles, bounded=True),
    b("StudentT", "df=5", lambda: bases.StudentT(2)),
    b("StudentT", "df=3, trainable", lambda: bases.StudentT(1, df=3.0, trainable_df=True)),
    b("GaussianMixture", "D=1", lambda: bases.GaussianMixture(1, components=3)),
    b("GaussianMixture", "D=2", lambda: bases.GaussianMixture(2, components=4, seed=1)),
    b("GaussianMixture", "one component, image", lambda: bases.GaussianMixture((1, 2, 2), components=1)),
    b("VonMises", "kappa=1", lambda: bases.VonMises(1), angles),
    b("VonMises", "kappa=20, trainable", lambda: bases.VonMises(2, concentration=20.0, trainable=True), angles),
    *(b("MADEMixture", f"D={d}", lambda d=d: bases.MADEMixture(d, components=3, hidden=(16,))) for d in (1, 2)),
    b("MADEMixture", "context", lambda: bases.MADEMixture(2, components=2, hidden=(16,), context=3)),
    b("ConditionalNormal", "D=1", lambda: bases.ConditionalNormal(1, context=2, hidden=(16,))),
    b("ConditionalNormal", "image", lambda: bases.ConditionalNormal((1, 2, 2), context=3, hidden=(16,))),
    b("models.Ensemble", "of two", lambda: models.Ensemble(*pair())),
    b("models.Ensemble", "context", lambda: models.Ensemble(*pair(context=2))),
]


def f(name: str, label: str, make: Callable[[], Any], data: Draw = shifted, **more: Any) -> ModelCase:
    return ModelCase(f"models.{name}", label, make, data, **more)


SMALL: dict[str, Any] = {"hidden": (16,)}
NSF: dict[str, Any] = {"flow_layers": 2, "bins": 5, "hidden_features": 16, "residual_blocks": 1}


def flow(*parts: Any) -> Callable[[], Model]:
    """A Flow of constructors, the base last."""

    def build() -> Model:
        made = [part() for part in parts]
        return models.Flow(maps.Chain(*made[:-1]), made[-1])

    return build


MODELS: list[ModelCase] = [
    *(f("NICE", f"D={d}", lambda d=d: models.NICE(d, **SMALL)) for d in (1, 2, 5)),
    f("NICE", "normal prior, context", lambda: models.NICE(2, context=3, prior="normal", **SMALL)),
    f("NICE", "context, D=1", lambda: models.NICE(1, context=3, couplings=1, **SMALL)),
    f("NICE", "raw", lambda: models.NICE(5, context=1, standardize=False, **SMALL)),
    *(f("RealNVP", f"D={d}", lambda d=d: models.RealNVP(d, couplings=3, **SMALL)) for d in (1, 2, 5)),
    f("RealNVP", "batch norm", lambda: models.RealNVP(2, couplings=2, batch_norm=True, **SMALL)),
    f("RealNVP", "context, D=1", lambda: models.RealNVP(1, context=3, couplings=2, **SMALL)),
    f("RealNVP", "context", lambda: models.RealNVP(5, context=2, couplings=3, activation="tanh", **SMALL)),
    f("MAF", "D=1", lambda: models.MAF(1, layers=2, **SMALL)),
    *(f("MAF", f"D={d}", lambda d=d: models.MAF(d, layers=2, **SMALL), fast="log_prob") for d in (2, 5)),
    f("MAF", "mixture base, D=1", lambda: models.MAF(1, layers=1, components=3, **SMALL)),
    f("MAF", "mixture base", lambda: models.MAF(2, layers=2, components=3, **SMALL), fast="log_prob"),
    f(
        "MAF",
        "mixture base, context",
        lambda: models.MAF(2, context=2, layers=1, components=2, **SMALL),
        fast="log_prob",
    ),
    f("MAF", "batch norm", lambda: models.MAF(2, layers=3, batch_norm=True, **SMALL), fast="log_prob"),
    f("MAF", "context, residual", lambda: models.MAF(5, context=2, layers=2, residual=True, **SMALL), fast="log_prob"),
    f("MAF", "context, D=1", lambda: models.MAF(1, context=2, layers=1, **SMALL)),
    f("IAF", "D=1", lambda: models.IAF(1, steps=2, **SMALL)),
    *(f("IAF", f"D={d}", lambda d=d: models.IAF(d, steps=2, **SMALL), fast="sample") for d in (2, 5)),
    f("IAF", "affine", lambda: models.IAF(2, steps=2, gated=False, residual=True, **SMALL), fast="sample"),
    f("IAF", "context", lambda: models.IAF(5, context=2, steps=2, **SMALL), fast="sample"),
    f("IAF", "context, D=1", lambda: models.IAF(1, context=2, steps=1, **SMALL)),
    *(f("NSF", f"coupling, D={d}", lambda d=d: models.NSF(d, **NSF)) for d in (1, 2, 5)),
    f("NSF", "coupling, context", lambda: models.NSF(5, context=2, unconditional=True, **NSF)),
    f("NSF", "coupling, no linear", lambda: models.NSF(2, linear="none", unconditional=True, **NSF)),
    f("NSF", "permutation only", lambda: models.NSF(5, linear="permutation", **NSF)),
    f("NSF", "context, D=1", lambda: models.NSF(1, context=2, **NSF)),
    *(
        f("NSF", f"autoregressive, D={d}", lambda d=d: models.NSF(d, kind="autoregressive", **NSF), fast="log_prob")
        for d in (2, 5)
    ),
    f(
        "NSF",
        "autoregressive, one order, context",
        lambda: models.NSF(2, context=2, kind="autoregressive", linear="none", **NSF),
        fast="log_prob",
    ),
    f("NSF", "circular, D=1", lambda: models.NSF(1, circular=True, **NSF), angles),
    f("NSF", "circular, D=2", lambda: models.NSF(2, circular=True, **NSF), angles),
    f(
        "NSF",
        "circular, autoregressive, context",
        lambda: models.NSF(2, context=2, circular=True, kind="autoregressive", **NSF),
        angles,
        fast="log_prob",
    ),
    # Flows of one's own: other bases, bounded data, other event shapes.
    f("Flow", "mixture base", flow(lambda: maps.Affine(2, trainable=True), lambda: bases.GaussianMixture(2, 3))),
    f("Flow", "heavy tails", flow(lambda: maps.Standardize(2), lambda: maps.LULinear(2), lambda: bases.StudentT(2))),
    f("Flow", "soft tail", flow(lambda: maps.SoftTail(2), lambda: maps.Planar(2), lambda: bases.Normal(2))),
    f(
        "Flow",
        "sigmoid to the cube",
        flow(lambda: maps.Standardize(2), lambda: maps.Sigmoid(2), lambda: bases.Uniform(2)),
    ),
    f("Flow", "bounded data", flow(lambda: maps.Logit(2), lambda: maps.Radial(2), lambda: bases.Normal(2)), unit),
    f(
        "Flow",
        "positive data",
        flow(lambda: maps.Inverse(maps.Exp(1)), lambda: maps.ActNorm(1), lambda: bases.Normal(1)),
        positive,
    ),
    f("Flow", "circle", flow(lambda: maps.Monotone(1, CIRCLE), lambda: bases.VonMises(1, trainable=True)), angles),
    f(
        "Flow",
        "conditional base",
        flow(lambda: maps.Coupling(2, SPLINE, context=2, **H), lambda: bases.ConditionalNormal(2, 2, hidden=(16,))),
    ),
    f(
        "Flow",
        "context in the base only",
        flow(lambda: maps.Standardize(1), lambda: bases.ConditionalNormal(1, 2, hidden=(16,))),
    ),
    f(
        "Flow",
        "image",
        flow(lambda: maps.ActNorm((1, 2, 2)), lambda: maps.SoftTail((1, 2, 2)), lambda: bases.Normal((1, 2, 2))),
    ),
    f("Flow", "sylvester", flow(lambda: maps.Standardize(2), lambda: maps.Sylvester(2, 2), lambda: bases.Normal(2))),
    f("Flow", "householder", flow(lambda: maps.Householder(2), lambda: bases.Logistic(2))),
    f("Flow", "ensemble", flow(lambda: maps.Standardize(2), lambda: models.Ensemble(*pair()))),
    f("Flow", "ensemble, context", flow(lambda: maps.Standardize(2), lambda: models.Ensemble(*pair(context=2)))),
    f(
        "Flow",
        "margin that the base does not respect",
        silently(flow(lambda: maps.Logit(2, alpha=0.05), lambda: maps.Affine(2), lambda: bases.Normal(2))),
        unit,
        relation=Relation.LOWER,
    ),
    f(
        "Flow",
        "dequantised",
        flow(
            lambda: maps.UniformDequantize(2, 4),
            lambda: maps.Logit(2),
            lambda: maps.LULinear(2),
            lambda: bases.Normal(2),
        ),
        integers(4),
        relation=Relation.LOWER,
        measure=Counting(2),
    ),
    f(
        "Flow",
        "dequantised, context",
        flow(
            lambda: maps.UniformDequantize(1, 6),
            lambda: maps.Logit(1),
            lambda: maps.Monotone(1, SPLINE, context=2, **H),
            lambda: bases.Normal(1),
        ),
        integers(6),
        relation=Relation.LOWER,
        measure=Counting(1),
    ),
    f(
        "Flow",
        "lattice columns",
        flow(
            lambda: maps.LatticeDequantize(3, columns=(1, 2), steps=0.25, origins=0.5),
            lambda: maps.Jitter(3, 0.1),
            lambda: maps.Standardize(3),
            lambda: maps.MaskedAutoregressive(3, SPLINE, **H),
            lambda: bases.Normal(3),
        ),
        lattice,
        relation=Relation.LOWER,
        measure=Mixed(1, 2),
        fast="log_prob",
    ),
    f(
        "Flow",
        "missing values",
        flow(
            lambda: maps.AugmentMissing(3, columns=(0,), indicators=(1,)),
            lambda: maps.Standardize(3),
            lambda: maps.Coupling(3, **H),
            lambda: bases.Normal(3),
        ),
        with_missing,
        relation=Relation.LOWER,
        invertible=False,  # a missing value is drawn, and not taken back
    ),
]


NETWORKS: list[Case] = [
    Case("networks.MLP", "plain", lambda: networks.MLP(3, 2, (16, 8), activation="gelu")),
    Case("networks.MLP", "residual, bounded", lambda: networks.MLP(3, 2, (16, 16), residual=True, input_bound=5.0)),
    Case("networks.MLP", "linear", lambda: networks.MLP(3, 2, ())),
    Case("networks.MLP", "dropout", lambda: networks.MLP(3, 2, (16, 8), dropout=0.2)),
    Case("networks.MADE", "plain", lambda: networks.MADE(3, 2, (16, 8), order=(2, 0, 1))),
    Case("networks.MADE", "residual, context", lambda: networks.MADE(3, 2, (16, 16), residual=True, context=2)),
    Case("networks.MADE", "D=1", lambda: networks.MADE(1, 2, (), context=2, dropout=0.1)),
]

TRANSFORMERS: list[Case] = [
    Case("transformers.AdditiveTransformer", "", maps.AdditiveTransformer),
    Case("transformers.AffineTransformer", "", maps.AffineTransformer),
    Case("transformers.AffineTransformer", "narrow", lambda: maps.AffineTransformer(max_log_scale=0.5)),
    Case("transformers.GatedTransformer", "", maps.GatedTransformer),
    Case("transformers.GatedTransformer", "no bias", lambda: maps.GatedTransformer(bias=0.0)),
    Case("transformers.SplineTransformer", "", maps.SplineTransformer),
    Case("transformers.SplineTransformer", "two bins", lambda: maps.SplineTransformer(bins=2, bound=1.0)),
    Case("transformers.CircularSplineTransformer", "", maps.CircularSplineTransformer, angles),
]

ALL: list[Case] = [*MAPS, *BASES, *MODELS, *NETWORKS, *TRANSFORMERS]
MODULES: list[Case] = [case for case in ALL if not case.name.startswith("transformers")]
