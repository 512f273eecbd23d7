"""Images: their transforms, networks and models, on the smallest images that are sufficient."""

from __future__ import annotations

from pushforward import models, networks, transforms
from pushforward.likelihood import Counting, Kind

from .kinds import NSF, SPLINE, Case, ModelCase, TransformCase, f, integers, m

SMALL = {"hidden": (6,)}

TRANSFORMS: list[TransformCase] = [
    m("Squeeze", "glow", lambda: transforms.Squeeze((2, 2, 4))),
    m("Squeeze", "checkerboard", lambda: transforms.Squeeze((2, 4, 2), "checkerboard")),
    m("Flatten", "image", lambda: transforms.Flatten((2, 1, 3))),
    m("FactorOut", "half", lambda: transforms.FactorOut((3, 2, 1))),
    m(
        "FactorOut",
        "nested",
        lambda: transforms.FactorOut(
            (4, 2, 1),
            transforms.Chain(
                transforms.ActNorm((2, 2, 1)),
                transforms.ImageCoupling((2, 2, 1), **SMALL),
                transforms.FactorOut((2, 2, 1), transforms.Affine((1, 2, 1), trainable=True)),
            ),
        ),
    ),
    m("ImageCoupling", "channels, affine", lambda: transforms.ImageCoupling((3, 2, 3), residual=True, **SMALL)),
    m(
        "ImageCoupling",
        "channels, spline, context, flip",
        lambda: transforms.ImageCoupling((3, 2, 2), SPLINE, keep=2, flip=True, context=2, kernel_size=1, hidden=(3,)),
    ),
    m(
        "ImageCoupling",
        "board, spline",
        lambda: transforms.ImageCoupling((1, 3, 3), SPLINE, mask="checkerboard", **SMALL),
    ),
    m(
        "ImageCoupling",
        "board, gated, context, keep",
        lambda: transforms.ImageCoupling(
            (2, 2, 3), transforms.GatedTransformer(), mask="checkerboard", keep=1, flip=True, context=1, **SMALL
        ),
    ),
    m(
        "ImageCoupling",
        "board, normalized, context",
        lambda: transforms.ImageCoupling(
            (1, 3, 2), mask="checkerboard", residual=True, normalize=True, context=2, **SMALL
        ),
    ),
    m(
        "ImageCoupling",
        "channels, attention, mixture, context",
        lambda: transforms.ImageCoupling((2, 2, 3), transforms.MixtureCDFTransformer(2), heads=2, context=2, **SMALL),
    ),
    m("InvertibleConv1x1", "lu", lambda: transforms.InvertibleConv1x1((3, 2, 2))),
    m("InvertibleConv2d", "causal", lambda: transforms.InvertibleConv2d((2, 3, 2), kernel_size=2)),
    m("InvertibleConv2d", "emerging", lambda: transforms.InvertibleConv2d((2, 2, 3), "emerging")),
    m("InvertibleConv2d", "depthwise", lambda: transforms.InvertibleConv2d((2, 2, 2), "depthwise", form="free")),
    m("InvertibleConv2d", "periodic", lambda: transforms.InvertibleConv2d((2, 3, 2), "periodic")),
    m("InvertibleConv1x1", "free", lambda: transforms.InvertibleConv1x1((3, 1, 2), form="free", seed=2)),
    m(
        "VariationalDequantize",
        "8 levels",
        lambda: transforms.VariationalDequantize((1, 2, 2), levels=8, couplings=1, hidden=(4,)),
        integers(8),
        kind=Kind.LOWER_BOUND,
        data_measure=Counting(4),
        bijective=False,
    ),
    m("Permutation", "channels", lambda: transforms.Permutation((3, 2, 2), seed=1, dim=-3)),
    m("Reverse", "channels", lambda: transforms.Reverse((3, 2, 2), dim=-3)),
]

NETWORKS: list[Case] = [
    Case("networks.ConvNet", "plain", lambda: networks.ConvNet(3, 2, (6, 5), input_bound=5.0)),
    Case("networks.ConvNet", "normalized", lambda: networks.ConvNet(3, 2, (6, 6), residual=True, normalize=True)),
    Case("networks.ConvNet", "residual, dropout", lambda: networks.ConvNet(3, 2, (6, 6), residual=True, dropout=0.2)),
]


def image(name: str, label: str, make, levels: int, size: int) -> ModelCase:
    return f(name, label, make, integers(levels), kind=Kind.LOWER_BOUND, measure=Counting(size))


MODELS: list[ModelCase] = [
    image("ImageNICE", "", lambda: models.ImageNICE(shape=(1, 3, 3), layers=3, levels=8, alpha=0.05, **SMALL), 8, 9),
    image("ImageRealNVP", "", lambda: models.ImageRealNVP(shape=(1, 4, 2), layers=3, batch_norm=True, **SMALL), 256, 8),
    image(
        "ImageRealNVP",
        "normalized networks",
        lambda: models.ImageRealNVP(shape=(1, 2, 4), layers=1, scales=1, normalize=True, **SMALL),
        256,
        8,
    ),
    image(
        "FlowPlusPlus",
        "context",
        lambda: models.FlowPlusPlus(
            (1, 2, 4), 2, layers=(1, 1, 1), components=2, heads=2, levels=32, dequantize="uniform", hidden=(4,)
        ),
        32,
        8,
    ),
    image("ImageNSF", "", lambda: models.ImageNSF(shape=(1, 4, 4), linear="permutation", **NSF), 256, 16),
    image(
        "Glow",
        "context",
        lambda: models.Glow((1, 4, 2), context=2, scales=1, layers=2, levels=32, hidden=(3,)),
        32,
        8,
    ),
    image(
        "Glow",
        "additive, reverse",
        lambda: models.Glow((1, 2, 4), scales=1, layers=2, affine=False, linear="reverse", hidden=(4, 4)),
        256,
        8,
    ),
    image(
        "ConvGlow",
        "emerging",
        lambda: models.ConvGlow((1, 4, 2), mode="emerging", scales=1, layers=1, hidden=(3,)),
        256,
        8,
    ),
    image(
        "ConvGlow",
        "periodic",
        lambda: models.ConvGlow((1, 2, 4), mode="periodic", scales=1, layers=1, hidden=(3,)),
        256,
        8,
    ),
]
