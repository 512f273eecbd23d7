"""Bases."""

from __future__ import annotations

import math
from typing import Any

from pushforward import distributions, models, transforms

from .kinds import DistributionCase, angles, b, pair, signed_unit

TINY: dict[str, Any] = {"filters": 6, "layers": 2, "first_kernel_size": 3}


DISTRIBUTIONS: list[DistributionCase] = [
    *(b("Normal", f"D={d}", lambda d=d: distributions.Normal(d)) for d in (1, 2)),
    b("Normal", "trainable", lambda: distributions.Normal(2, trainable=True)),
    b("Normal", "image", lambda: distributions.Normal((1, 2, 2), trainable=True)),
    *(b("Logistic", f"D={d}", lambda d=d: distributions.Logistic(d)) for d in (1, 2)),
    b("Uniform", "D=1", lambda: distributions.Uniform(1, low=-1.0, high=3.0), signed_unit, bounded=True),
    b("Uniform", "circle, D=2", lambda: distributions.Uniform(2, -math.pi, math.pi), angles, bounded=True),
    b("StudentT", "df=5", lambda: distributions.StudentT(2)),
    b("StudentT", "df=3, trainable", lambda: distributions.StudentT(1, df=3.0, trainable_df=True)),
    b("GaussianMixture", "D=1", lambda: distributions.GaussianMixture(1, components=3)),
    b("GaussianMixture", "D=2", lambda: distributions.GaussianMixture(2, components=4, seed=1)),
    b("GaussianMixture", "one component, image", lambda: distributions.GaussianMixture((1, 2, 2), components=1)),
    *(b("KernelDensity", f"D={d}", lambda d=d: distributions.KernelDensity(d, 20)) for d in (1, 2)),
    b("KernelDensity", "image, larger than the number of rows", lambda: distributions.KernelDensity((1, 2, 2), 300)),
    b("PixelCNN", "real", lambda: distributions.PixelCNN((1, 1, 2), transforms.GaussianLikelihood(), **TINY)),
    b(
        "PixelCNN",
        "real mixture",
        lambda: distributions.PixelCNN((1, 2, 2), transforms.GaussianMixtureLikelihood(2), **TINY),
    ),
    b("VonMises", "kappa=1", lambda: distributions.VonMises(1), angles),
    b("VonMises", "kappa=20, trainable", lambda: distributions.VonMises(2, concentration=20.0, trainable=True), angles),
    *(b("MADEMixture", f"D={d}", lambda d=d: distributions.MADEMixture(d, components=3, hidden=(16,))) for d in (1, 2)),
    b("MADEMixture", "context", lambda: distributions.MADEMixture(2, components=2, hidden=(16,), context=3)),
    b("ConditionalNormal", "D=1", lambda: distributions.ConditionalNormal(1, context=2, hidden=(16,))),
    b("ConditionalNormal", "image", lambda: distributions.ConditionalNormal((1, 2, 2), context=3, hidden=(16,))),
    b("models.Ensemble", "of two", lambda: models.Ensemble(*pair())),
    b("models.Ensemble", "context", lambda: models.Ensemble(*pair(context=2))),
]
