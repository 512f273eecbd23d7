"""Log-likelihoods and latents of a model in float64, with special treatment of infinite inputs."""

from __future__ import annotations

import torch
from torch import Tensor

from pushforward.errors import ConfigError, InputError
from pushforward.likelihood import Kind
from pushforward.models import Model
from pushforward.numerics import MiddleNoise, RowNoise, cast_finite

__all__ = ["NOISES", "check_model", "far_rows", "finite_reference", "latents", "log_likelihood"]


NOISES = {"row": RowNoise, "middle": MiddleNoise}
"""Noise of dequantization: a hash of the row, or the middle of each cell, which other runtimes have too."""


def check_model(model: Model, owner: str, *, context: bool = True) -> Model:
    """Check the model argument of a score and return it.

    Args:
        model: argument to check.
        owner: name of the score, for the error message.
        context: whether the model may have a context.

    Raises:
        ConfigError: if the argument is not a model, or has a context and must not.
    """
    if not isinstance(model, Model):
        raise ConfigError(f"{owner} needs a model of pushforward; got {type(model).__name__}.")
    if model.context_features and not context:
        raise ConfigError(f"{owner} needs a model without a context.")
    return model


def log_likelihood(model: Model, x: Tensor, samples: int = 1) -> Tensor:
    """``model.evaluate(x)`` for each row, nats, float64, ``(n,)``; -inf for rows with an infinite entry.

    The terms are added in float64: the spacing of float32 numbers near -7000 is 5e-4, which would affect differences.
    """
    result = model.evaluate(x, samples=samples)
    value = result.value.double()
    if samples > 1 and result.kind is not Kind.EXACT:
        return value  # the terms are means over draws, and their sum is not the value
    total = torch.stack([term.double() for term in result.terms.values()]).sum(0)
    return torch.where(torch.isfinite(value), total, value)


def latents(model: Model, x: Tensor, noise: str = "row") -> Tensor:
    """z = encode(x), flattened, float64, ``(n, D)``; infinite entries of x are replaced by 0 (see :func:`far_rows`).

    Args:
        model: any model.
        x: rows.
        noise: one of :data:`NOISES`.
    """
    x = torch.where(torch.isinf(x), 0.0, x) if x.is_floating_point() else x
    if noise == "middle":
        return model.chain.encode(cast_finite(x, model.dtype), None, noise=MiddleNoise()).z.flatten(1).double()
    return model.encode(x).flatten(1).double()


def far_rows(x: Tensor) -> Tensor:
    """Mask of the rows with an infinite entry, ``(n,)``."""
    return torch.isinf(x).flatten(1).any(1)


def finite_reference(values: Tensor, owner: str) -> Tensor:
    """Check that the values of reference rows are finite and return them.

    Raises:
        InputError: for an infinite value; the message names the first such row.
    """
    bad = ~torch.isfinite(values).reshape(len(values), -1).all(1)
    if bad.any():
        raise InputError(
            f"{owner} is infinite in row {int(bad.nonzero()[0])} of the reference ({int(bad.sum())} of {len(values)} rows): "
            "fit on in-distribution rows that have a positive density under the model."
        )
    return values
