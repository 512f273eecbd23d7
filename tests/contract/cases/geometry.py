"""Linear factors, block networks, Gaussianization, circles and spheres, discrete flows."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from pushforward import distributions, models, transforms
from pushforward.likelihood import Counting, Manifold

from .kinds import Case, DistributionCase, ModelCase, TransformCase, angles, b, f, flow, integers, m, normal, shifted


def unit_vectors(shape: tuple[int, ...], generator: Generator) -> Tensor:
    x = normal(shape, generator)
    return x / x.norm(dim=-1, keepdim=True)


def corners(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """One-hot rows ``(..., D, K)``."""
    return torch.eye(shape[-1], dtype=torch.float64)[torch.randint(shape[-1], shape[:-1], generator=generator)]


MOBIUS = transforms.MobiusTransformer(components=3)

TRANSFORMS: list[TransformCase] = [
    m("QRLinear", "D=1", lambda: transforms.QRLinear(1)),
    m("QRLinear", "two reflections, no bias", lambda: transforms.QRLinear(5, reflections=2, bias=False, seed=3)),
    m("WoodburyLinear", "D=1", lambda: transforms.WoodburyLinear(1)),
    m("WoodburyLinear", "rank 3", lambda: transforms.WoodburyLinear(5, rank=3)),
    m("BlockAutoregressive", "D=1", lambda: transforms.BlockAutoregressive(1, hidden=(4,))),
    m("BlockAutoregressive", "context", lambda: transforms.BlockAutoregressive(3, hidden=(4, 3), context=2)),
    m("Gaussianize", "D=1", lambda: transforms.Gaussianize(1, components=3)),
    m("Gaussianize", "other units", lambda: transforms.Gaussianize(2, components=4), shifted),
    m(
        "MaskedAutoregressive",
        "Moebius",
        lambda: transforms.MaskedAutoregressive(2, MOBIUS, hidden=(8,), context=1),
        angles,
    ),
    m("SphereCoupling", "D=4, context", lambda: transforms.SphereCoupling(4, bins=4, hidden=(8,), context=2)),
    m("SphereAutoregressive", "spline", lambda: transforms.SphereAutoregressive(bins=4, hidden=(8,))),
    m("SphereAutoregressive", "context", lambda: transforms.SphereAutoregressive(bins=4, hidden=(8,), context=2)),
    m(
        "OneHot",
        "three categories",
        lambda: transforms.OneHot(2, 3),
        integers(3),
        latent_measure=Counting(2),
        bijective=False,
    ),
    m("ModuloCoupling", "D=1", lambda: transforms.ModuloCoupling(1, 3), corners, latent_measure=Counting(1)),
    m(
        "ModuloCoupling",
        "flip",
        lambda: transforms.ModuloCoupling(3, 4, flip=True, hidden=(8,)),
        corners,
        latent_measure=Counting(3),
    ),
    m(
        "ModuloAutoregressive",
        "context",
        lambda: transforms.ModuloAutoregressive(3, 4, hidden=(8,), context=2),
        corners,
        latent_measure=Counting(3),
    ),
]

SURFACE = Manifold(2, 3)

DISTRIBUTIONS: list[DistributionCase] = [
    b("UniformSphere", "S2", lambda: distributions.UniformSphere(3), unit_vectors, bounded=True, measure=SURFACE),
    b("VonMisesFisher", "", lambda: distributions.VonMisesFisher(concentration=5.0), unit_vectors, measure=SURFACE),
    b(
        "VonMisesFisher",
        "trainable",
        lambda: distributions.VonMisesFisher(mean=(1.0, -2.0, 0.5), trainable=True),
        unit_vectors,
        measure=SURFACE,
    ),
    b("Categorical", "", lambda: distributions.Categorical(2, 3), corners, bounded=True, measure=Counting(2)),
    b(
        "Categorical",
        "trainable",
        lambda: distributions.Categorical(2, 3, trainable=True),
        corners,
        measure=Counting(2),
    ),
]

MODELS: list[ModelCase] = [
    f("BNAF", "D=1", lambda: models.BNAF(1, layers=1, hidden=(4,))),
    f("BNAF", "D=2", lambda: models.BNAF(2, layers=2, hidden=(4, 3)), fast="log_prob"),
    f("BNAF", "context", lambda: models.BNAF(2, context=2, layers=1, hidden=(4,)), fast="log_prob"),
    f("GaussianizationFlow", "D=1", lambda: models.GaussianizationFlow(1, layers=1, components=3)),
    f("GaussianizationFlow", "D=2", lambda: models.GaussianizationFlow(2, layers=1, components=2)),
    f(
        "Flow",
        "torus",
        flow(
            lambda: transforms.Coupling(2, MOBIUS, hidden=(8,)),
            lambda: transforms.Coupling(2, MOBIUS, hidden=(8,), flip=True),
            lambda: distributions.VonMises(2, trainable=True),
        ),
        angles,
    ),
    f(
        "DiscreteFlow",
        "autoregressive",
        lambda: models.DiscreteFlow(2, 3, hidden=(8,)),
        integers(3),
        measure=Counting(2),
        fast="log_prob",
    ),
    f(
        "DiscreteFlow",
        "coupling",
        lambda: models.DiscreteFlow(3, 4, layer="coupling", hidden=(8,)),
        integers(4),
        measure=Counting(3),
    ),
]

TRANSFORMERS: list[Case] = [
    Case("transformers.MobiusTransformer", "", transforms.MobiusTransformer, angles),
    Case(
        "transformers.MobiusTransformer",
        "one",
        lambda: transforms.MobiusTransformer(components=1, min_slope=0.1),
        angles,
    ),
]
