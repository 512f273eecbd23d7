"""Images: their maps, networks and models, on the smallest images that tell."""

from __future__ import annotations

from pushforward import maps, networks
from pushforward.measure import Counting, Relation

from .kinds import SPLINE, Case, MapCase, ModelCase, integers, m

SMALL = {"hidden": (6,)}

MAPS: list[MapCase] = [
    m("Squeeze", "glow", lambda: maps.Squeeze((2, 2, 4))),
    m("Squeeze", "checkerboard", lambda: maps.Squeeze((2, 4, 2), "checkerboard")),
    m("Flatten", "image", lambda: maps.Flatten((2, 1, 3))),
    m("FactorOut", "half", lambda: maps.FactorOut((3, 2, 1))),
    m(
        "FactorOut",
        "nested",
        lambda: maps.FactorOut(
            (4, 2, 1),
            maps.Chain(
                maps.ActNorm((2, 2, 1)),
                maps.ImageCoupling((2, 2, 1), **SMALL),
                maps.FactorOut((2, 2, 1), maps.Affine((1, 2, 1), trainable=True)),
            ),
        ),
    ),
    m("ImageCoupling", "channels, affine", lambda: maps.ImageCoupling((3, 2, 3), residual=True, **SMALL)),
    m(
        "ImageCoupling",
        "channels, spline, context, flip",
        lambda: maps.ImageCoupling((3, 2, 2), SPLINE, keep=2, flip=True, context=2, kernel_size=1, hidden=(3,)),
    ),
    m("ImageCoupling", "board, spline", lambda: maps.ImageCoupling((1, 3, 3), SPLINE, mask="checkerboard", **SMALL)),
    m(
        "ImageCoupling",
        "board, gated, context, keep",
        lambda: maps.ImageCoupling(
            (2, 2, 3), maps.GatedTransformer(), mask="checkerboard", keep=1, flip=True, context=1, **SMALL
        ),
    ),
    m("InvertibleConv1x1", "lu", lambda: maps.InvertibleConv1x1((3, 2, 2))),
    m("InvertibleConv1x1", "free", lambda: maps.InvertibleConv1x1((3, 1, 2), form="free", seed=2)),
    m(
        "VariationalDequantize",
        "8 levels",
        lambda: maps.VariationalDequantize((1, 2, 2), levels=8, couplings=1, hidden=(4,)),
        integers(8),
        relation=Relation.LOWER,
        data_measure=Counting(4),
        bijective=False,
    ),
    m("Permutation", "channels", lambda: maps.Permutation((3, 2, 2), seed=1, dim=-3)),
    m("Reverse", "channels", lambda: maps.Reverse((3, 2, 2), dim=-3)),
]

NETWORKS: list[Case] = [
    Case("networks.ConvNet", "plain", lambda: networks.ConvNet(3, 2, (6, 5), input_bound=5.0)),
    Case("networks.ConvNet", "residual, dropout", lambda: networks.ConvNet(3, 2, (6, 6), residual=True, dropout=0.2)),
]

MODELS: list[ModelCase] = []
