"""Transforms."""

from __future__ import annotations

from pushforward import networks, transforms
from pushforward.likelihood import Counting, Kind, Mixed

from .kinds import (
    CIRCLE,
    EXP_REACH,
    SINH_REACH,
    SPLINE,
    H,
    TransformCase,
    angles,
    bounded,
    correlations,
    integers,
    lattice,
    m,
    positive,
    proportions,
    real_positive_proportions,
    shifted,
    signed_unit,
    unit,
    with_missing,
)

TRANSFORMS: list[TransformCase] = [
    *(m("Affine", f"D={d}", lambda d=d: transforms.Affine(d, shift=0.5, scale=-2.0)) for d in (1, 5)),
    m("Affine", "trainable, image", lambda: transforms.Affine((2, 3, 2), scale=0.3, trainable=True)),
    m("Affine", "per feature", lambda: transforms.Affine(2, shift=(1.0, -1.0), scale=(-0.1, 10.0), trainable=True)),
    m(
        "Affine",
        "multiplier",
        lambda: transforms.Affine(2, scale=(-0.1, 10.0), trainable=True, learning_rate_multiplier=10.0),
    ),
    *(m("Sigmoid", f"D={d}", lambda d=d: transforms.Sigmoid(d)) for d in (1, 2)),
    m("Logit", "alpha=0", lambda: transforms.Logit(2), unit),
    *(m("Probit", f"D={d}", lambda d=d: transforms.Probit(d), unit) for d in (1, 2)),
    m("Logit", "alpha=0.05", lambda: transforms.Logit(2, alpha=0.05), unit),
    m("Logit", "alpha=1e-6, image", lambda: transforms.Logit((1, 2, 2), alpha=1e-6), unit),
    *(m("Tanh", f"D={d}", lambda d=d: transforms.Tanh(d)) for d in (1, 5)),
    *(m("Softplus", f"D={d}", lambda d=d: transforms.Softplus(d)) for d in (1, 5)),
    *(m("Exp", f"D={d}", lambda d=d: transforms.Exp(d), reach=EXP_REACH) for d in (1, 5)),
    m("Bounds", "open", lambda: transforms.Bounds(2, low=(None, None), high=(None, None))),
    m(
        "Bounds",
        "every kind",
        lambda: transforms.Bounds(4, low=(-1.0, 0.5, None, None), high=(2.5, None, 4.0, None)),
        bounded,
    ),
    m(
        "Bounds",
        "every kind, probit",
        lambda: transforms.Bounds(4, low=(-1.0, 0.5, None, None), high=(2.5, None, 4.0, None), link="probit"),
        bounded,
    ),
    m("Bounds", "unit", lambda: transforms.Bounds(2, low=(0.0, 0.0), high=(1.0, 1.0)), unit),
    m("Bounds", "probit, unit", lambda: transforms.Bounds(2, (0.0, 0.0), (1.0, 1.0), link="probit"), unit),
    *(m("SoftTail", f"w={w}", lambda w=w: transforms.SoftTail(2, width=w)) for w in (0.5, 3.0)),
    *(m("Standardize", f"robust={r}", lambda r=r: transforms.Standardize(2, robust=r), shifted) for r in (False, True)),
    m("Standardize", "image", lambda: transforms.Standardize((2, 2, 2)), shifted),
    m("Cast", "64 to 32", lambda: transforms.Cast(2), casts=True),
    m("Cast", "32 to 64", lambda: transforms.Cast(2, source="float32", target="float64"), casts=True),
    m("Jitter", "scoring", lambda: transforms.Jitter(2, std=0.1)),
    m("Permutation", "drawn", lambda: transforms.Permutation(5, seed=3)),
    m("Permutation", "D=1", lambda: transforms.Permutation(1)),
    m("Permutation", "given, image", lambda: transforms.Permutation((2, 3), order=(2, 0, 1))),
    *(m("Reverse", f"D={d}", lambda d=d: transforms.Reverse(d)) for d in (1, 5)),
    *(m("LULinear", f"D={d}", lambda d=d: transforms.LULinear(d)) for d in (1, 2, 5)),
    m("LULinear", "no bias", lambda: transforms.LULinear(5, bias=False)),
    *(m("Householder", f"D={d}", lambda d=d: transforms.Householder(d)) for d in (1, 2, 5)),
    m("Householder", "K=2", lambda: transforms.Householder(5, reflections=2, seed=4)),
    *(m("ActNorm", f"D={d}", lambda d=d: transforms.ActNorm(d), shifted) for d in (1, 5)),
    m("ActNorm", "image", lambda: transforms.ActNorm((2, 3, 2)), shifted),
    *(m("BatchNorm", f"D={d}", lambda d=d: transforms.BatchNorm(d), shifted) for d in (1, 5)),
    m("BatchNorm", "image, eps", lambda: transforms.BatchNorm((2, 3, 2), eps=0.1), shifted),
    *(m("Planar", f"D={d}", lambda d=d: transforms.Planar(d)) for d in (1, 2, 5)),
    *(m("Radial", f"D={d}", lambda d=d: transforms.Radial(d)) for d in (1, 2, 5)),
    *(
        m("Sylvester", f"D={d}, M={r}", lambda d=d, r=r: transforms.Sylvester(d, rank=r))
        for d, r in ((1, 1), (2, 2), (5, 3))
    ),
    # Couplings: every transformer, mask and option.
    *(m("Coupling", f"affine, D={d}", lambda d=d: transforms.Coupling(d, **H)) for d in (1, 2, 5)),
    m("Coupling", "additive", lambda: transforms.Coupling(5, transforms.AdditiveTransformer(), flip=True, **H)),
    m("Coupling", "gated", lambda: transforms.Coupling(5, transforms.GatedTransformer(), mask="halves", **H)),
    m("Coupling", "spline", lambda: transforms.Coupling(5, SPLINE, mask=(4, 1), residual=True, **H)),
    m("Coupling", "spline, unconditional", lambda: transforms.Coupling(5, SPLINE, unconditional=True, **H)),
    m("Coupling", "spline, context", lambda: transforms.Coupling(2, SPLINE, context=3, **H)),
    m("Coupling", "affine, context, D=1", lambda: transforms.Coupling(1, context=3, activation="tanh", **H)),
    m("Coupling", "circular", lambda: transforms.Coupling(5, CIRCLE, context=1, unconditional=True, **H), angles),
    m(
        "Coupling",
        "numbers given angles",
        lambda: transforms.Coupling(5, SPLINE, mask=(0, 1, 3), angles=(0, 3), **H),
        angles,
    ),
    m(
        "Coupling",
        "angles given numbers",
        lambda: transforms.Coupling(5, CIRCLE, mask=(1, 2, 4), angles=(0, 3), **H),
        angles,
    ),
    # Autoregressive transforms: every transformer, order and option.
    *(
        m("MaskedAutoregressive", f"affine, D={d}", lambda d=d: transforms.MaskedAutoregressive(d, **H))
        for d in (1, 2, 5)
    ),
    m(
        "MaskedAutoregressive",
        "additive, reverse",
        lambda: transforms.MaskedAutoregressive(5, transforms.AdditiveTransformer(), order="reverse", **H),
    ),
    m(
        "MaskedAutoregressive",
        "gated, order",
        lambda: transforms.MaskedAutoregressive(5, transforms.GatedTransformer(), order=(3, 0, 4, 1, 2), **H),
    ),
    m("MaskedAutoregressive", "spline", lambda: transforms.MaskedAutoregressive(5, SPLINE, residual=True, **H)),
    m("MaskedAutoregressive", "spline, context", lambda: transforms.MaskedAutoregressive(2, SPLINE, context=3, **H)),
    m("MaskedAutoregressive", "context, D=1", lambda: transforms.MaskedAutoregressive(1, context=3, hidden=())),
    m(
        "MaskedAutoregressive",
        "circular",
        lambda: transforms.MaskedAutoregressive(5, CIRCLE, order="reverse", context=1, **H),
        angles,
    ),
    *(m("Monotone", f"D={d}", lambda d=d: transforms.Monotone(d)) for d in (1, 5)),
    m("Monotone", "spline, context", lambda: transforms.Monotone(2, SPLINE, context=3, **H)),
    m("Monotone", "circular", lambda: transforms.Monotone(2, CIRCLE), angles),
    m("Monotone", "affine, context", lambda: transforms.Monotone(1, transforms.AffineTransformer(), context=1, **H)),
    # Combinations.
    m("Chain", "of one", lambda: transforms.Chain(transforms.Affine(2, scale=3.0))),
    m(
        "Chain",
        "mixed, context",
        lambda: transforms.Chain(
            transforms.Standardize(5),
            transforms.MaskedAutoregressive(5, SPLINE, context=2, **H),
            transforms.Permutation(5),
            transforms.LULinear(5),
            transforms.Coupling(5, context=2, **H),
        ),
        shifted,
    ),
    m(
        "Chain",
        "nested, bounded data",
        lambda: transforms.Chain(
            transforms.Chain(transforms.Permutation(2), transforms.Logit(2)), transforms.Planar(2), transforms.Tanh(2)
        ),
        unit,
    ),
    # Constraints of parameters.
    *(m("StickBreaking", f"D={d}", lambda d=d: transforms.StickBreaking(d), proportions) for d in (1, 4)),
    *(
        m("PartialCorrelations", f"D={d}", lambda d=d: transforms.PartialCorrelations(d), correlations)
        for d in (1, 3, 6)
    ),
    m(
        "Blocks",
        "real, positive, simplex",
        lambda: transforms.Blocks(
            transforms.Affine(1, shift=1.0, scale=2.0),
            transforms.Inverse(transforms.Exp(1)),
            transforms.StickBreaking(2),
        ),
        real_positive_proportions,
    ),
    m(
        "EmbedContext",
        "autoregressive",
        lambda: transforms.EmbedContext(
            transforms.MaskedAutoregressive(2, context=3, activation="tanh", **H),
            networks.MLP(4, 3, hidden=(8,), activation="tanh"),
        ),
    ),
    m("Inverse", "of Exp", lambda: transforms.Inverse(transforms.Exp(2)), positive),
    m("Inverse", "of Softplus", lambda: transforms.Inverse(transforms.Softplus(2)), positive),
    m("Inverse", "of Sigmoid", lambda: transforms.Inverse(transforms.Sigmoid(2)), unit),
    m("Inverse", "of Tanh", lambda: transforms.Inverse(transforms.Tanh(2)), signed_unit),
    m("Inverse", "of Logit", lambda: transforms.Inverse(transforms.Logit(2))),
    m("Inverse", "of Probit", lambda: transforms.Inverse(transforms.Probit(2))),
    m("Inverse", "of MAF, context", lambda: transforms.Inverse(transforms.MaskedAutoregressive(5, context=2, **H))),
    m("Inverse", "of Coupling", lambda: transforms.Inverse(transforms.Coupling(2, SPLINE, **H))),
    m("Inverse", "of Planar", lambda: transforms.Inverse(transforms.Planar(2))),
    m("Inverse", "of Sylvester", lambda: transforms.Inverse(transforms.Sylvester(5, rank=3))),
    m("Inverse", "of Radial", lambda: transforms.Inverse(transforms.Radial(2))),
    m(
        "Inverse",
        "of a Chain",
        lambda: transforms.Inverse(transforms.Chain(transforms.LULinear(2), transforms.SoftTail(2))),
        reach=SINH_REACH,
    ),
    # Stochastic transforms: integers and missing values have no Jacobian.
    m(
        "UniformDequantize",
        "256 levels",
        lambda: transforms.UniformDequantize(2),
        integers(256),
        kind=Kind.LOWER_BOUND,
        data_measure=Counting(2),
        bijective=False,
    ),
    m(
        "UniformDequantize",
        "levels by column",
        lambda: transforms.UniformDequantize(2, levels=(4, 5)),
        integers(4),
        kind=Kind.LOWER_BOUND,
        data_measure=Counting(2),
        bijective=False,
    ),
    m(
        "UniformDequantize",
        "image",
        lambda: transforms.UniformDequantize((1, 2, 2), levels=8),
        integers(8),
        kind=Kind.LOWER_BOUND,
        data_measure=Counting(4),
        bijective=False,
    ),
    m(
        "LatticeDequantize",
        "two of three columns",
        lambda: transforms.LatticeDequantize(3, columns=(1, 2), steps=0.25, origins=0.5),
        lattice,
        kind=Kind.LOWER_BOUND,
        data_measure=Mixed(1, 2),
        bijective=False,
    ),
    m("LatticeDequantize", "no column", lambda: transforms.LatticeDequantize(2, columns=())),
    m(
        "AugmentMissing",
        "one of three columns",
        lambda: transforms.AugmentMissing(3, columns=(0,), indicators=(1,)),
        with_missing,
        kind=Kind.LOWER_BOUND,
        bijective=False,
    ),
]
