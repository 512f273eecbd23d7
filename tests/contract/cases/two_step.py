"""Two-step models: autoencoders, whitening, densities on their manifolds."""

from __future__ import annotations

from typing import Any

from pushforward import distributions, models, transforms
from pushforward.detection import scores
from pushforward.likelihood import Kind, Lebesgue, Manifold

from .kinds import NSF, ModelCase, ScoreCase, TransformCase, f, m, s

AE: dict[str, Any] = {"kind": Kind.ESTIMATE, "invertible": False, "draws": True, "noisy": False}
TWO: dict[str, Any] = {"kind": Kind.ESTIMATE, "invertible": False, "noisy": False, "exports": False}

CYCLE: dict[str, Any] = {"kind": Kind.ESTIMATE, "invertible": False, "draws": True}

TRANSFORMS: list[TransformCase] = [
    m("Whiten", "D=1", lambda: transforms.Whiten(1)),
    m("Whiten", "D=3", lambda: transforms.Whiten(3)),
    m("Whiten", "units", lambda: transforms.Whiten(3, units=True)),
    m("Regression", "D=1", lambda: transforms.Regression(1, context=2)),
    m("Regression", "D=3", lambda: transforms.Regression(3, context=2)),
]

MODELS: list[ModelCase] = [
    f("AutoEncoder", "vector", lambda: models.AutoEncoder(3, 2, hidden=(16,)), **AE),
    f(
        "AutoEncoder",
        "image, convolutions, discrepancy",
        lambda: models.AutoEncoder((1, 4, 3), 2, penalty="mmd", levels=8, channels=(4,)),
        measure=Lebesgue(12),
        **AE,
    ),
    f(
        "TwoStep",
        "flow",
        lambda: models.TwoStep(models.AutoEncoder(3, 2, hidden=(16,)), models.NSF(2, **NSF)),
        measure=Manifold(2, 3),
        **TWO,
    ),
    f(
        "TwoStep",
        "convolutions, mixture, d=1",
        lambda: models.TwoStep(models.AutoEncoder((1, 4, 3), 1, channels=(4,)), distributions.GaussianMixture(1, 2)),
        measure=Manifold(1, 12),
        **TWO,
    ),
    f(
        "TwoStep",
        "kernels",
        lambda: models.TwoStep(models.AutoEncoder(3, 2, hidden=(16,)), distributions.KernelDensity(2, 50)),
        measure=Manifold(2, 3),
        **TWO,
    ),
    f(
        "TwoStep",
        "codes as an image",
        lambda: models.TwoStep(
            models.AutoEncoder(5, 4, hidden=(16,)),
            distributions.PixelCNN(
                (1, 2, 2), transforms.GaussianMixtureLikelihood(2), filters=6, layers=1, first_kernel_size=3
            ),
        ),
        measure=Manifold(4, 5),
        fast="log_prob",
        **TWO,
    ),
    f(
        "CyGen",
        "conditional flow",
        lambda: models.CyGen(
            3,
            2,
            hidden=(16,),
            samples=4,
            gibbs_steps=3,
            flow=transforms.Coupling(2, transforms.AffineTransformer(), context=2, hidden=(8,)),
        ),
        **CYCLE,
    ),
    f(
        "CyGen",
        "image, convolutions",
        lambda: models.CyGen((1, 4, 3), 2, channels=(4,), levels=8, samples=1, gibbs_steps=2),
        measure=Lebesgue(12),
        **CYCLE,
    ),
    f(
        "CyGen",
        "elbo",
        lambda: models.CyGen(2, 1, hidden=(16,), objective="elbo"),
        **(CYCLE | {"kind": Kind.LOWER_BOUND}),
    ),
]


def curve() -> models.TwoStep:
    return models.TwoStep(models.AutoEncoder(2, 1, hidden=(8,)), distributions.GaussianMixture(1, 2))


SCORES: list[ScoreCase] = [
    s("ManifoldDistance", "curve", lambda: scores.ManifoldDistance(curve())),
    s("DensityAndDistance", "curve", lambda: scores.DensityAndDistance(curve())),
]
