"""What scores read of a model, in float64: log-likelihoods and latents, with infinitely far rows told apart."""

from __future__ import annotations

import torch
from torch import Tensor

from pushforward.errors import ConfigError, InputError
from pushforward.likelihood import Kind
from pushforward.models import Model

__all__ = ["check_model", "far_rows", "finite_reference", "latents", "log_likelihood"]


def check_model(model: Model, owner: str, *, context: bool = True) -> Model:
    """The model, if it is one.

    Args:
        model: what a score was given.
        owner: the score.
        context: whether it may read a context.

    Raises:
        ConfigError: for anything else.
    """
    if not isinstance(model, Model):
        raise ConfigError(f"{owner} reads models of pushforward; got {type(model).__name__}.")
    if model.context_features and not context:
        raise ConfigError(f"{owner} reads models without a context.")
    return model


def log_likelihood(model: Model, x: Tensor, samples: int = 1) -> Tensor:
    """log p of each row as the model evaluates it, nats, float64, ``(n,)``; -inf for rows that are infinitely far.

    The terms are added in float64: in float32 numbers near -7000 lie 5e-4 apart, which differences would show.
    """
    result = model.evaluate(x, samples=samples)
    value = result.value.double()
    if samples > 1 and result.kind is not Kind.EXACT:
        return value  # its terms are averages over draws, which add up to another number
    total = torch.stack([term.double() for term in result.terms.values()]).sum(0)
    return torch.where(torch.isfinite(value), total, value)


def latents(model: Model, x: Tensor) -> Tensor:
    """z = encode(x) as rows of D coordinates, float64, ``(n, D)``; an infinite x counts as 0 (see :func:`far_rows`)."""
    return model.encode(torch.where(torch.isinf(x), 0.0, x) if x.is_floating_point() else x).flatten(1).double()


def far_rows(x: Tensor) -> Tensor:
    """Which rows have an infinite entry, ``(n,)``."""
    return torch.isinf(x).flatten(1).any(1)


def finite_reference(values: Tensor, owner: str) -> Tensor:
    """The values of reference rows, if all are finite.

    Raises:
        InputError: naming the first row that has an infinite one.
    """
    bad = ~torch.isfinite(values).reshape(len(values), -1).all(1)
    if bad.any():
        raise InputError(
            f"{owner} is infinite in row {int(bad.nonzero()[0])} of the reference ({int(bad.sum())} of {len(values)} rows): "
            "fit on in-distribution rows that the model does not rule out."
        )
    return values
