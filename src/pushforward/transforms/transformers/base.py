"""`Transformer`: increasing functions y = f(x; parameters) that couplings and autoregressive transforms apply to each coordinate.

In the terms of Papamakarios et al. (2021, sec. 3.1) a *conditioner* computes the parameters and a *transformer* uses them.
Parameters come first: ``raw`` has shape ``(parameters, *x.shape)`` and any real value is legal. At ``raw = 0`` each
transformer is the identity, unless its docstring says otherwise. Scales and slopes are bounded, so nothing overflows far
from the data.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from pushforward.errors import ConfigError
from pushforward.likelihood import REAL, Support

__all__ = ["Transformer", "check_transformer", "cos_and_sin", "expand_parameters"]


class Transformer(ABC):
    """A family of increasing functions of one variable. Subclasses are frozen dataclasses and store no tensors.

    Example:
        >>> import torch
        >>> from pushforward.transforms import AffineTransformer
        >>> f = AffineTransformer()
        >>> x = torch.tensor([0.5])
        >>> y, log_slope = f.forward(x, torch.zeros(f.parameters, 1))
        >>> y, log_slope  # raw parameters of 0 give the identity
        (tensor([0.5000]), tensor([0.]))
    """

    support: Support = REAL
    """The interval that the transformer maps onto itself."""
    periodic: bool = False
    """Whether coordinates are angles. Conditioners then read their cosine and sine."""
    output_gain: float = 1.0
    """Factor on the initial weights of a conditioner's last layer. Flexible transformers learn faster from near the identity."""

    @property
    @abstractmethod
    def parameters(self) -> int:
        """Number of raw parameters for each coordinate."""

    @abstractmethod
    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """y = f(x) and log f'(x), both shaped as ``x``; ``raw`` is ``(parameters, *x.shape)``."""

    @abstractmethod
    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """x with f(x) = y, and log f'(x), both shaped as ``y``."""


def check_transformer(transformer: Transformer) -> Transformer:
    """Return the argument if it is a transformer.

    Raises:
        ConfigError: for anything else.
    """
    if not isinstance(transformer, Transformer):
        raise ConfigError(f"transformer must be a Transformer such as AffineTransformer(); got {transformer!r}.")
    return transformer


def expand_parameters(free: Tensor, x: Tensor) -> Tensor:
    """Free parameters ``(parameters, width)`` as ``(parameters, *x.shape)``."""
    free = free.to(torch.promote_types(free.dtype, x.dtype))
    return free.reshape(free.shape[0], *(1,) * (x.dim() - 1), free.shape[1]).expand(free.shape[0], *x.shape)


def cos_and_sin(angles: Tensor, dim: int) -> Tensor:
    """What a conditioner reads of angles: their cosines, then their sines, along ``dim``. Beyond -pi and pi an angle counts as the end."""
    angles = angles.clamp(-math.pi, math.pi)  # the cosine of an infinite angle is NaN
    return torch.cat((angles.cos(), angles.sin()), dim)
