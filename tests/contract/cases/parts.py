"""Conditioner networks and transformers."""

from __future__ import annotations

from pushforward import networks, transforms

from .kinds import Case, angles

NETWORKS: list[Case] = [
    Case("networks.MLP", "plain", lambda: networks.MLP(3, 2, (16, 8), activation="gelu")),
    Case("networks.MLP", "residual, bounded", lambda: networks.MLP(3, 2, (16, 16), residual=True, input_bound=5.0)),
    Case("networks.MLP", "linear", lambda: networks.MLP(3, 2, ())),
    Case("networks.MLP", "dropout", lambda: networks.MLP(3, 2, (16, 8), dropout=0.2)),
    Case("networks.MADE", "plain", lambda: networks.MADE(3, 2, (16, 8), order=(2, 0, 1))),
    Case("networks.MADE", "residual, context", lambda: networks.MADE(3, 2, (16, 16), residual=True, context=2)),
    Case("networks.MADE", "D=1", lambda: networks.MADE(1, 2, (), context=2, dropout=0.1)),
    Case("networks.ConvSummary", "image", lambda: networks.ConvSummary((2, 5, 4), 3, channels=(4, 6), hidden=(8,))),
    Case("networks.ConvSummary", "series", lambda: networks.ConvSummary((1, 9), 2, channels=(4,), hidden=(8,))),
    Case("networks.SetSummary", "", lambda: networks.SetSummary(5, 2, 3, hidden=(8, 8))),
    Case("networks.RecurrentSummary", "", lambda: networks.RecurrentSummary(4, 2, 3, hidden=8, layers=2)),
]

TRANSFORMERS: list[Case] = [
    Case("transformers.AdditiveTransformer", "", transforms.AdditiveTransformer),
    Case("transformers.AffineTransformer", "", transforms.AffineTransformer),
    Case("transformers.AffineTransformer", "narrow", lambda: transforms.AffineTransformer(max_log_scale=0.5)),
    Case("transformers.GatedTransformer", "", transforms.GatedTransformer),
    Case("transformers.GatedTransformer", "no bias", lambda: transforms.GatedTransformer(bias=0.0)),
    Case("transformers.SplineTransformer", "", transforms.SplineTransformer),
    Case("transformers.SplineTransformer", "two bins", lambda: transforms.SplineTransformer(bins=2, bound=1.0)),
    Case("transformers.CircularSplineTransformer", "", transforms.CircularSplineTransformer, angles),
]
