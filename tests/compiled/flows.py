"""Flows that have a native form entirely, in part, or not at all, and how their results are compared."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pushforward import distributions, models, transforms
from pushforward.kernels import description
from pushforward.transforms import Chain

compiled = pytest.mark.skipif(not description()["installed"], reason="the native kernels are not installed")


def couplings(*transformers: transforms.Transformer, **options) -> models.Flow:
    """A flow with one coupling for each transformer."""
    parts = [
        transforms.Coupling(5, transformer, flip=k % 2 == 1, hidden=(20,), **options)
        for k, transformer in enumerate(transformers)
    ]
    return models.Flow(Chain(*parts), distributions.Normal(5))


WHOLE = {
    "nice": lambda: models.NICE(5, hidden=(24, 24)),
    "realnvp": lambda: models.RealNVP(5, hidden=(24, 17), batch_norm=True),
    "realnvp context": lambda: models.RealNVP(5, context=3, hidden=(24,)),
    "maf": lambda: models.MAF(5, hidden=(40, 33)),
    "maf wide": lambda: models.MAF(20, layers=2, hidden=(150,)),
    "maf context residual": lambda: models.MAF(5, context=2, hidden=(24, 24), residual=True, batch_norm=True),
    "maf context, no hidden layer": lambda: models.MAF(3, context=2, hidden=()),
    "maf of one": lambda: models.MAF(1),
    "maf of one with context": lambda: models.MAF(1, context=2),
    "nsf": lambda: models.NSF(5, hidden=(24, 24), layers=3, unconditional=True),
    "nsf autoregressive": lambda: models.NSF(5, context=1, layer="autoregressive", hidden=(24, 24), layers=2),
    "nsf of one": lambda: models.NSF(1),
    "nsf double": lambda: models.NSF(4, hidden=(16, 16), layers=2).double(),
    "householder": lambda: models.Flow(
        Chain(
            transforms.ActNorm(4),
            transforms.Householder(4),
            transforms.Reverse(4),
            transforms.Affine(4, 0.5, (1.0, -2.0, 3.0, 0.1), True),
        ),
        distributions.Normal(4, trainable=True),
    ),
    **{
        name: lambda name=name: couplings(
            transforms.AffineTransformer(),
            transforms.SplineTransformer(5),
            transforms.AdditiveTransformer(),
            activation=name,
        )
        for name in ("relu", "tanh", "elu", "silu", "gelu", "softplus", "leaky_relu")
    },
}
PART = {
    "logit": lambda: models.Flow(
        Chain(transforms.Logit(3), transforms.Standardize(3), transforms.Coupling(3, hidden=(16,))),
        distributions.Normal(3),
    ),
    "logit and context": lambda: models.Flow(
        Chain(transforms.Logit(3), transforms.Coupling(3, hidden=(16,), context=2)), distributions.Normal(3)
    ),
    "ensemble": lambda: models.Flow(
        transforms.SoftTail(4), models.Ensemble(models.NSF(4, hidden=(16, 16)), models.MAF(4), models.NICE(4))
    ),
    "table": lambda: models.Flow(
        Chain(transforms.Standardize(4).double(), transforms.Cast(4), transforms.Jitter(4)),
        models.Ensemble(models.MAF(4, hidden=(16,)), models.RealNVP(4, hidden=(16,))),
    ),
}
NONE = {
    "other transformer": lambda: models.SOS(3),
    "inverse autoregressive": lambda: models.IAF(3),
    "other base": lambda: models.MAF(3, components=2),
    "image": lambda: models.Glow((1, 4, 4), scales=1, layers=1, hidden=(8, 8)),
}


def made(build, seed: int = 0) -> models.Model:
    """The model with random weights and statistics."""
    torch.manual_seed(seed)
    model = build()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        model.initialize(*rows(model, 200))
    return model.eval()


def rows(model, count: int, scale: float = 1.0):
    """Rows that the model can read, and contexts if it reads them."""
    x = torch.randn(count, *model.shape) * scale
    if isinstance(model.chain[0], transforms.Logit):
        x = torch.sigmoid(x)
    if not isinstance(model, models.Flow) and len(model.shape) == 3:
        x = torch.randint(0, 256, (count, *model.shape))
    return x, 2 + torch.randn(count, model.context_features) if model.context_features else None


def close(found, expected, weights: torch.dtype = torch.float64) -> None:
    """Equal to rounding in the type of the numbers, or of the weights where that is shorter."""
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert not found.requires_grad
    tolerance = 1e-12 if {found.dtype, weights} == {torch.float64} else 1e-5
    torch.testing.assert_close(found, expected.detach(), rtol=tolerance, atol=10 * tolerance)


def in_threads(call: Callable[[], Tensor]) -> list[Tensor]:
    """The last result of each of eight threads that make a call twenty times at once."""
    found: list[Tensor] = [torch.zeros(())] * 8

    def work(k: int) -> None:
        with torch.no_grad():
            for _ in range(20):
                found[k] = call()

    workers = [threading.Thread(target=work, args=(k,)) for k in range(len(found))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return found
