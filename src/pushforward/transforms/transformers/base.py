"""Scalar monotone laws y = f(x; parameters) that couplings and autoregressive transforms apply to each coordinate.

In the terms of Papamakarios et al. (2021, sec. 3.1) a *conditioner* gives the parameters and a *transformer* uses them.
Parameters come first: ``raw`` has shape ``(parameters, *x.shape)`` and any real value is legal; at 0 each law is the
identity. Scales and slopes are bounded, so nothing overflows far from the data.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from pushforward.errors import ConfigError
from pushforward.likelihood import REAL, Support

__all__ = ["Transformer", "check_transformer"]


class Transformer(ABC):
    """A family of increasing functions of one variable. Subclasses are frozen dataclasses and hold no tensors."""

    support: Support = REAL
    """The interval that the law transforms onto itself."""
    volume: bool = True
    """Whether the slope can differ from 1."""
    periodic: bool = False
    """Whether coordinates are angles, which conditioners see as cosine and sine."""
    start: float = 1.0
    """Factor on the weights of a conditioner's last layer at the start. Flexible laws learn faster from near the identity."""

    @property
    @abstractmethod
    def parameters(self) -> int:
        """Raw parameters for each coordinate."""

    @abstractmethod
    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """y = f(x) and log f'(x), both shaped as ``x``; ``raw`` is ``(parameters, *x.shape)``."""

    @abstractmethod
    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """x with f(x) = y, and log f'(x), both shaped as ``y``."""


def check_transformer(transformer: Transformer) -> Transformer:
    """The law, if it is one.

    Raises:
        ConfigError: for anything else.
    """
    if not isinstance(transformer, Transformer):
        raise ConfigError(f"transformer must be a law such as AffineTransformer(); got {transformer!r}.")
    return transformer


def expand_parameters(free: Tensor, x: Tensor) -> Tensor:
    """Free parameters ``(parameters, width)`` as ``(parameters, *x.shape)``."""
    free = free.to(torch.promote_types(free.dtype, x.dtype))
    return free.reshape(free.shape[0], *(1,) * (x.dim() - 1), free.shape[1]).expand(free.shape[0], *x.shape)
