"""Fixed monotone transforms of each coordinate: sigmoid, logit, tanh, softplus, exponential and a soft tail.

All run from data to noise; ``Inverse(...)`` runs them in the other direction, as ``Inverse(Softplus(3))`` for positive data.
Where a formula saturates in floating point, the result stays strictly inside its open interval, so the next transform never
receives an infinity. The log-derivative is computed from x and stays accurate far from 0.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from pushforward.likelihood import UNIT, Support
from pushforward.numerics import Noise, minus_log_cosh, sum_event
from pushforward.numerics.checks import check_number, check_positive
from pushforward.registry import register
from pushforward.transforms.base import Shape, Step, Transform, outside

__all__ = ["Elementwise", "Exp", "Logit", "Sigmoid", "SoftTail", "Softplus", "Tanh", "inside_unit", "spare"]

POSITIVE = Support(0.0, math.inf)


class Elementwise(Transform):
    """A monotone function of each coordinate; a subclass defines :meth:`function` and :meth:`inverse_function`.

    A row with a coordinate outside ``domain`` gets the contribution -inf, and the z of the nearest point inside.
    ``decode`` moves a coordinate outside ``codomain`` to the nearest number inside it.

    Example:
        >>> import torch, pushforward as pf
        >>> isinstance(pf.transforms.Tanh(2), pf.transforms.Elementwise), pf.transforms.Tanh(2).encode(torch.zeros(1, 2)).z
        (True, tensor([[0., 0.]]))
    """

    autoregressive_order = "any"

    def __init__(self, features: int | Shape) -> None:
        super().__init__(features)
        self.features = features

    @abstractmethod
    def function(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z and log abs dz/dx, both shaped as ``x``; finite outside the domain too."""

    @abstractmethod
    def inverse_function(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """x, and log abs dz/dx there, both shaped as ``z``; finite outside the codomain too."""

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """z and the sum of log abs dz/dx over the event; -inf for rows outside the domain."""
        dims = len(self.in_shape)
        z, log_slope = self.function(x)
        return Step(z, sum_event(log_slope, dims) + outside(x, self.domain, dims))

    def encode_terms(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> tuple[Tensor, Tensor]:
        """z and log abs dz/dx of each coordinate; -inf for coordinates outside the domain."""
        z, log_slope = self.function(x)
        return z, log_slope + outside(x, self.domain, 0)

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """x; coordinates outside the codomain are moved just inside."""
        return self.inverse_function(z)[0]

    def decode_with_contribution(
        self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None
    ) -> tuple[Tensor, Tensor]:
        """x, and the contribution computed from z, which stays accurate where x saturates."""
        x, log_slope = self.inverse_function(z)
        return x, sum_event(log_slope, len(self.in_shape))


@register("transforms")
class Sigmoid(Elementwise):
    """z = 1 / (1 + exp(-x)), the reals to (0, 1); log dz/dx = log sigmoid(x) + log sigmoid(-x).

    Args:
        features: event shape.

    Example:
        >>> import torch
        >>> from pushforward.transforms import Sigmoid
        >>> Sigmoid(1).encode(torch.tensor([[0.0]]))[:2]
        (tensor([[0.5000]]), tensor([-1.3863]))
    """

    codomain = UNIT

    def function(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Sigmoid of x, strictly inside (0, 1)."""
        return inside_unit(torch.sigmoid(x)), F.logsigmoid(x) + F.logsigmoid(-x)

    def inverse_function(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """log z - log(1 - z)."""
        z = inside_unit(z)
        return torch.log(z) - torch.log1p(-z), torch.log(z) + torch.log1p(-z)


@register("transforms")
class Logit(Elementwise):
    """z = logit(alpha + (1 - 2 alpha) x), data in [0, 1] to the reals (Dinh et al. 2016, sec. 4.1, made symmetric).

    log dz/dx = log(1 - 2 alpha) - log y - log(1 - y) with y = alpha + (1 - 2 alpha) x.

    With alpha > 0, z is finite on the closed interval and lies in [logit alpha, logit(1 - alpha)]. A base distribution on
    all reals then has mass where no data point lies, so the likelihood is a lower bound. With alpha = 0 the image is all
    reals, and 0 and 1 are replaced by the nearest numbers inside (0, 1).

    Args:
        features: event shape.
        alpha: margin at both ends, 0 <= alpha < 1/2; 0.05 for Real NVP's CIFAR-10, 1e-6 for MAF's MNIST.

    Raises:
        ConfigError: for an alpha outside [0, 1/2).

    Example:
        >>> import torch
        >>> from pushforward.transforms import Logit
        >>> Logit(2, alpha=0.05).encode(torch.tensor([[0.0, 1.0]])).z
        tensor([[-2.9444,  2.9444]])
    """

    domain = UNIT

    def __init__(self, features: int | Shape, alpha: float = 0.0) -> None:
        super().__init__(features)
        check_number("alpha", alpha, 0, 0.5, closed="left")
        self.alpha = alpha
        if alpha > 0:
            edge = math.log1p(-alpha) - math.log(alpha)
            self.codomain = Support(-edge, edge)

    def function(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logit of alpha + (1 - 2 alpha) x."""
        y = inside_unit(self.alpha + (1 - 2 * self.alpha) * x.clamp(0, 1))
        log_y, log_rest = torch.log(y), torch.log1p(-y)
        return self._inside(log_y - log_rest), math.log1p(-2 * self.alpha) - log_y - log_rest

    def inverse_function(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """(sigmoid(z) - alpha) / (1 - 2 alpha), in [0, 1]."""
        z = self._inside(z)
        x = ((torch.sigmoid(z) - self.alpha) / (1 - 2 * self.alpha)).clamp(0, 1)
        return x, math.log1p(-2 * self.alpha) - F.logsigmoid(z) - F.logsigmoid(-z)

    def _inside(self, z: Tensor) -> Tensor:
        assert self.codomain is not None
        return z.clamp(self.codomain.low, self.codomain.high)


@register("transforms")
class Tanh(Elementwise):
    """z = tanh(x), the reals to (-1, 1); log dz/dx = 2 (log 2 - x - softplus(-2 x)).

    Args:
        features: event shape.

    Example:
        >>> import torch
        >>> from pushforward.transforms import Tanh
        >>> Tanh(1).encode(torch.tensor([[30.0]])).contribution     # accurate although tanh(30) is 1 in float32
        tensor([-58.6137])
    """

    codomain = Support(-1.0, 1.0)

    def function(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Tanh of x, strictly inside (-1, 1)."""
        return _inside_signed_unit(torch.tanh(x)), 2 * minus_log_cosh(x)

    def inverse_function(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """(log(1 + z) - log(1 - z)) / 2."""
        z = _inside_signed_unit(z)
        up, down = torch.log1p(z), torch.log1p(-z)
        return 0.5 * (up - down), up + down


@register("transforms")
class Softplus(Elementwise):
    """z = log(1 + exp(x)), the reals to (0, inf); log dz/dx = log sigmoid(x).

    Args:
        features: event shape.

    Example:
        >>> import torch
        >>> from pushforward.transforms import Softplus
        >>> Softplus(1).decode(torch.tensor([[1.0]]))
        tensor([[0.5413]])
    """

    codomain = POSITIVE

    def function(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Softplus of x, strictly positive."""
        # torch's softplus returns x beyond 20, an error of 2e-9 that matters in float64.
        return _inside_positive(-F.logsigmoid(-x)), F.logsigmoid(x)

    def inverse_function(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """z + log(1 - exp(-z))."""
        z = _inside_positive(z)
        log_slope = torch.log(-torch.expm1(-z))
        return z + log_slope, log_slope


@register("transforms")
class Exp(Elementwise):
    """z = exp(x), the reals to (0, inf); log dz/dx = x. ``Inverse(Exp(D))`` takes the log of positive data.

    z stays between 1,024 times the smallest and 1/1,024 of the largest normal number of the type (about 1e-35 and 3e35 in float32); the
    contribution is x beyond that too.

    Args:
        features: event shape.

    Example:
        >>> import torch
        >>> from pushforward.transforms import Exp, Inverse
        >>> Inverse(Exp(1)).encode(torch.tensor([[1.0]])).z
        tensor([[0.]])
    """

    codomain = POSITIVE

    def function(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Exponential of x."""
        limits = torch.finfo(x.dtype)
        return torch.exp(x.clamp(math.log(limits.tiny * spare(limits)), math.log(limits.max / spare(limits)))), x

    def inverse_function(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """log z."""
        x = torch.log(_inside_positive(z))
        return x, x


@register("transforms")
class SoftTail(Elementwise):
    """z = w asinh(x / w): the identity near 0 and logarithmic far from it, so that one huge value cannot dominate.

    log dz/dx = -log cosh(z / w) = -log sqrt(1 + (x / w)^2). It is odd and smooth. The inverse x = w sinh(z / w)
    is bounded at 1e30 widths, so that decoding cannot overflow.

    Args:
        features: event shape.
        width: width w > 0 of the nearly linear part, in the units of x; 3 suits standardized data.

    Raises:
        ConfigError: for a width that is not positive and finite.

    Example:
        >>> import torch
        >>> from pushforward.transforms import SoftTail
        >>> SoftTail(3, width=3.0).encode(torch.tensor([[0.1, 3.0, 1e6]])).z
        tensor([[ 0.1000,  2.6441, 40.2301]])
    """

    def __init__(self, features: int | Shape, width: float = 3.0) -> None:
        super().__init__(features)
        check_positive("width", width)
        self.width = width

    def function(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """w asinh(x / w)."""
        s = torch.asinh(x / self.width)
        return self.width * s, minus_log_cosh(s)

    def inverse_function(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """w sinh(z / w)."""
        s = (z / self.width).clamp(-_MAX_ARGUMENT, _MAX_ARGUMENT)
        return self.width * torch.sinh(s), minus_log_cosh(s)


_MAX_ARGUMENT = math.asinh(1e30)


def inside_unit(p: Tensor) -> Tensor:
    """Probabilities moved strictly inside (0, 1)."""
    # Numbers near 0 are much denser than numbers near 1, which are eps apart.
    limits = torch.finfo(p.dtype)
    return p.clamp(limits.tiny * spare(limits), 1 - limits.eps)


def spare(limits: torch.finfo) -> float:
    """How many times the smallest normal number results are at least, so that 1 / p is finite.

    It is 1 in float16, where 1,024 times that number is 1/16, which would change results in the middle of the unit interval.
    """
    return 1024.0 if limits.tiny < 1e-30 else 1.0


def _inside_signed_unit(p: Tensor) -> Tensor:
    edge = 1 - torch.finfo(p.dtype).eps
    return p.clamp(-edge, edge)


def _inside_positive(z: Tensor) -> Tensor:
    limits = torch.finfo(z.dtype)
    return z.clamp(min=limits.tiny * spare(limits))
