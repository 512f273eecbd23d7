"""Models."""

from __future__ import annotations

from pushforward import distributions, models, transforms
from pushforward.likelihood import Counting, Kind, Mixed

from .kinds import (
    CIRCLE,
    NSF,
    SMALL,
    SPLINE,
    H,
    ModelCase,
    angles,
    f,
    flow,
    integers,
    lattice,
    pair,
    positive,
    silently,
    unit,
    with_missing,
)

MODELS: list[ModelCase] = [
    *(f("NICE", f"D={d}", lambda d=d: models.NICE(d, **SMALL)) for d in (1, 2, 5)),
    f("NICE", "normal prior, context", lambda: models.NICE(2, context=3, prior="normal", **SMALL)),
    f("NICE", "context, D=1", lambda: models.NICE(1, context=3, layers=1, **SMALL)),
    f("NICE", "raw", lambda: models.NICE(5, context=1, standardize=False, **SMALL)),
    *(f("RealNVP", f"D={d}", lambda d=d: models.RealNVP(d, layers=3, **SMALL)) for d in (1, 2, 5)),
    f("RealNVP", "batch norm", lambda: models.RealNVP(2, layers=2, batch_norm=True, **SMALL)),
    f("RealNVP", "context, D=1", lambda: models.RealNVP(1, context=3, layers=2, **SMALL)),
    f("RealNVP", "context", lambda: models.RealNVP(5, context=2, layers=3, activation="tanh", **SMALL)),
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
    f("IAF", "D=1", lambda: models.IAF(1, layers=2, **SMALL)),
    *(f("IAF", f"D={d}", lambda d=d: models.IAF(d, layers=2, **SMALL), fast="sample") for d in (2, 5)),
    f("IAF", "affine", lambda: models.IAF(2, layers=2, gated=False, residual=True, **SMALL), fast="sample"),
    f("IAF", "context", lambda: models.IAF(5, context=2, layers=2, **SMALL), fast="sample"),
    f("IAF", "context, D=1", lambda: models.IAF(1, context=2, layers=1, **SMALL)),
    *(f("NSF", f"coupling, D={d}", lambda d=d: models.NSF(d, **NSF)) for d in (1, 2, 5)),
    f("NSF", "coupling, context", lambda: models.NSF(5, context=2, unconditional=True, **NSF)),
    f("NSF", "coupling, no linear", lambda: models.NSF(2, linear="none", unconditional=True, **NSF)),
    f("NSF", "permutation only", lambda: models.NSF(5, linear="permutation", **NSF)),
    f("NSF", "context, D=1", lambda: models.NSF(1, context=2, **NSF)),
    *(
        f("NSF", f"autoregressive, D={d}", lambda d=d: models.NSF(d, layer="autoregressive", **NSF), fast="log_prob")
        for d in (2, 5)
    ),
    f(
        "NSF",
        "autoregressive, one order, context",
        lambda: models.NSF(2, context=2, layer="autoregressive", linear="none", **NSF),
        fast="log_prob",
    ),
    f("NSF", "circular, D=1", lambda: models.NSF(1, circular=True, **NSF), angles),
    f("NSF", "circular, D=2", lambda: models.NSF(2, circular=True, **NSF), angles),
    f(
        "NSF",
        "circular, autoregressive, context",
        lambda: models.NSF(2, context=2, circular=True, layer="autoregressive", **NSF),
        angles,
        fast="log_prob",
    ),
    f("NSF", "an angle and numbers", lambda: models.NSF(3, circular=(1,), **NSF), angles),
    f(
        "NSF",
        "angles and a number, context",
        lambda: models.NSF(3, context=2, circular=(0, 1), linear="none", **NSF),
        angles,
    ),
    # Flows of one's own: other distributions, bounded data, other event shapes.
    f(
        "Flow",
        "mixture base",
        flow(lambda: transforms.Affine(2, trainable=True), lambda: distributions.GaussianMixture(2, 3)),
    ),
    f(
        "Flow",
        "heavy tails",
        flow(lambda: transforms.Standardize(2), lambda: transforms.LULinear(2), lambda: distributions.StudentT(2)),
    ),
    f(
        "Flow",
        "soft tail",
        flow(lambda: transforms.SoftTail(2), lambda: transforms.Planar(2), lambda: distributions.Normal(2)),
    ),
    f(
        "Flow",
        "sigmoid to the cube",
        flow(lambda: transforms.Standardize(2), lambda: transforms.Sigmoid(2), lambda: distributions.Uniform(2)),
    ),
    f(
        "Flow",
        "bounded data",
        flow(lambda: transforms.Logit(2), lambda: transforms.Radial(2), lambda: distributions.Normal(2)),
        unit,
    ),
    f(
        "Flow",
        "positive data",
        flow(
            lambda: transforms.Inverse(transforms.Exp(1)),
            lambda: transforms.ActNorm(1),
            lambda: distributions.Normal(1),
        ),
        positive,
    ),
    f(
        "Flow",
        "circle",
        flow(lambda: transforms.Monotone(1, CIRCLE), lambda: distributions.VonMises(1, trainable=True)),
        angles,
    ),
    f(
        "Flow",
        "conditional base",
        flow(
            lambda: transforms.Coupling(2, SPLINE, context=2, **H),
            lambda: distributions.ConditionalNormal(2, 2, hidden=(16,)),
        ),
    ),
    f(
        "Flow",
        "context in the base only",
        flow(lambda: transforms.Standardize(1), lambda: distributions.ConditionalNormal(1, 2, hidden=(16,))),
    ),
    f(
        "Flow",
        "image",
        flow(
            lambda: transforms.ActNorm((1, 2, 2)),
            lambda: transforms.SoftTail((1, 2, 2)),
            lambda: distributions.Normal((1, 2, 2)),
        ),
    ),
    f(
        "Flow",
        "sylvester",
        flow(lambda: transforms.Standardize(2), lambda: transforms.Sylvester(2, 2), lambda: distributions.Normal(2)),
    ),
    f("Flow", "householder", flow(lambda: transforms.Householder(2), lambda: distributions.Logistic(2))),
    f("Flow", "ensemble", flow(lambda: transforms.Standardize(2), lambda: models.Ensemble(*pair()))),
    f("Flow", "ensemble, context", flow(lambda: transforms.Standardize(2), lambda: models.Ensemble(*pair(context=2)))),
    f(
        "Flow",
        "margin that the base does not respect",
        silently(
            flow(lambda: transforms.Logit(2, alpha=0.05), lambda: transforms.Affine(2), lambda: distributions.Normal(2))
        ),
        unit,
        kind=Kind.LOWER_BOUND,
    ),
    f(
        "Flow",
        "dequantized",
        flow(
            lambda: transforms.UniformDequantize(2, 4),
            lambda: transforms.Logit(2),
            lambda: transforms.LULinear(2),
            lambda: distributions.Normal(2),
        ),
        integers(4),
        kind=Kind.LOWER_BOUND,
        measure=Counting(2),
    ),
    f(
        "Flow",
        "dequantized, context",
        flow(
            lambda: transforms.UniformDequantize(1, 6),
            lambda: transforms.Logit(1),
            lambda: transforms.Monotone(1, SPLINE, context=2, **H),
            lambda: distributions.Normal(1),
        ),
        integers(6),
        kind=Kind.LOWER_BOUND,
        measure=Counting(1),
    ),
    f(
        "Flow",
        "lattice columns",
        flow(
            lambda: transforms.LatticeDequantize(3, columns=(1, 2), steps=0.25, origins=0.5),
            lambda: transforms.Jitter(3, 0.1),
            lambda: transforms.Standardize(3),
            lambda: transforms.MaskedAutoregressive(3, SPLINE, **H),
            lambda: distributions.Normal(3),
        ),
        lattice,
        kind=Kind.LOWER_BOUND,
        measure=Mixed(1, 2),
        fast="log_prob",
    ),
    f(
        "Flow",
        "missing values",
        flow(
            lambda: transforms.AugmentMissing(3, columns=(0,), indicators=(1,)),
            lambda: transforms.Standardize(3),
            lambda: transforms.Coupling(3, **H),
            lambda: distributions.Normal(3),
        ),
        with_missing,
        kind=Kind.LOWER_BOUND,
        invertible=False,  # a missing value is drawn, and not taken back
    ),
]
