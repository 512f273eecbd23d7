"""Distributions on the unit sphere: uniform, and von Mises-Fisher. Their densities refer to area."""

from __future__ import annotations

import math

import torch
from torch import Size, Tensor, nn

from pushforward.distributions.base import Distribution
from pushforward.errors import ConfigError
from pushforward.likelihood import SPHERE, Manifold, Measure
from pushforward.numerics import split_infinite
from pushforward.numerics.checks import check_number
from pushforward.registry import register
from pushforward.transforms.base import check_event

__all__ = ["UniformSphere", "VonMisesFisher"]

TOLERANCE = 1e-3
"""Largest deviation of a length from 1; other points are not on the sphere and have log-density -inf."""
_FLATTEST, _SHARPEST = 1e-8, 1e8


def direction(z: Tensor) -> tuple[Tensor, Tensor]:
    """Unit vectors ``(*batch, D)``, and for each row 0 if it is on the sphere, -inf if not; NaN stays NaN."""
    z, far = split_infinite(z, 1)
    largest = z.detach().abs().amax(-1, keepdim=True)
    scaled = z / torch.where(largest == 0, 1.0, largest)
    norm = torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)
    tolerance = max(TOLERANCE, 4 * torch.finfo(z.dtype).eps)  # rounding alone changes a length in 16 bits
    off = ((norm * largest - 1).abs() > tolerance).squeeze(-1)
    return scaled / torch.where(norm == 0, 1.0, norm), far + torch.where(off, -math.inf, 0.0).to(z.dtype)


@register("distributions")
class UniformSphere(Distribution):
    """Uniform on the unit sphere in R^D: log p(z) = log Gamma(D/2) - log 2 - (D/2) log pi, minus the log of its area.

    The density refers to area, Manifold(D - 1, D). A row whose length differs from 1 by more than 0.001 is not on the sphere and
    has log-density -inf.

    Args:
        features: D, at least 2.

    Raises:
        ConfigError: for another D.

    Example:
        >>> import torch
        >>> UniformSphere(3).log_prob(torch.tensor([[0.6, 0.0, 0.8], [1.0, 1.0, 1.0]]))     # -log(4 pi)
        tensor([-2.5310,    -inf])
    """

    def __init__(self, features: int = 3) -> None:
        super().__init__(features)
        if len(self.shape) != 1 or self.shape[0] < 2:
            raise ConfigError(
                f"the sphere of UniformSphere is in R^D with D of at least 2, so features must be such a width; got {features!r}."
            )
        self.features = features

    @property
    def measure(self) -> Measure:
        """Area of the sphere."""
        return Manifold(self.shape[0] - 1, self.shape[0], SPHERE)

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density in nats: ``(*batch, D)`` to ``batch``."""
        check_event(z, self.shape, type(self).__name__)
        unit, off = direction(z)
        half = self.shape[0] / 2
        return off + 0.0 * unit.sum(-1) + (math.lgamma(half) - math.log(2) - half * math.log(math.pi))

    def sample(self, batch: Size, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """``(*batch, D)``: normal vectors scaled to length 1."""
        like = self.like(generator)
        normal = torch.randn((*batch, *self.shape), generator=generator, dtype=torch.float64, device=like["device"])
        unit = normal / torch.linalg.vector_norm(normal, dim=-1, keepdim=True)
        return unit.to(like["dtype"])


@register("distributions")
class VonMisesFisher(Distribution):
    """Analog of the normal on the sphere in R^3: log p(z) = kappa mu.z + log kappa - log(4 pi sinh kappa) (Fisher 1953).

    The density refers to area, Manifold(2, 3). A row whose length differs from 1 by more than 0.001 is not on the sphere and has
    log-density -inf.

    Args:
        features: 3.
        mean: mu, a vector of any positive length.
        concentration: kappa, from 1e-8 (nearly uniform) to 1e8 (nearly normal with variance 1 / kappa).
        trainable: whether mu and log kappa are trainable. Samples have gradients with respect to both.

    Raises:
        ConfigError: if ``features`` is not 3, ``mean`` is 0, or the concentration is outside that range.

    Example:
        >>> import torch
        >>> VonMisesFisher(concentration=2.0).log_prob(torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]]))
        tensor([-1.1262, -5.1262])
    """

    def __init__(
        self,
        features: int = 3,
        mean: tuple[float, ...] = (0.0, 0.0, 1.0),
        concentration: float = 1.0,
        trainable: bool = False,
    ) -> None:
        if features != 3 or isinstance(features, bool):
            raise ConfigError(
                f"VonMisesFisher is a distribution on the sphere in R^3, so features must be 3; got {features!r}."
            )
        given = mean if isinstance(mean, (tuple, list)) else ()
        numbers = [check_number("mean", m, -math.inf, math.inf) for m in given]
        if len(numbers) != 3 or not any(numbers):
            raise ConfigError(f"mean must be three finite numbers that are not all 0; got {mean!r:.80}.")
        check_number("concentration", concentration, _FLATTEST, _SHARPEST, closed="both")
        super().__init__(3)
        self.features, self.mean, self.concentration, self.trainable = 3, tuple(mean), concentration, trainable
        largest = max(map(abs, numbers))
        unit = largest if not 1e-30 < largest < 1e30 else 1.0  # float32 holds neither very small nor very large numbers
        pole, log_kappa = torch.tensor([m / unit for m in numbers]), torch.full((), math.log(concentration))
        if trainable:
            self.pole, self.log_concentration = nn.Parameter(pole), nn.Parameter(log_kappa)
        else:
            self.register_buffer("pole", pole)
            self.register_buffer("log_concentration", log_kappa)

    pole: Tensor
    log_concentration: Tensor

    @property
    def measure(self) -> Measure:
        """Area of the sphere."""
        return Manifold(2, 3, SPHERE)

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density in nats: ``(*batch, 3)`` to ``batch``."""
        check_event(z, self.shape, type(self).__name__)
        unit, off = direction(z)
        mean, kappa = self._mean_and_concentration()
        # mu.z - 1 as a square, which is exact at high concentration.
        core = -0.5 * kappa * (unit - mean).square().sum(-1)
        return off + core + kappa.log() - (-torch.expm1(-2 * kappa)).log() - math.log(2 * math.pi)

    def sample(self, batch: Size, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """``(*batch, 3)``: mu.z by its quantile function, and a uniform angle around mu."""
        like = self.like(generator)
        options = {"dtype": torch.float64, "device": like["device"]}
        mean, kappa = (t.to(**options) for t in self._mean_and_concentration())
        u = torch.rand((2, *batch), generator=generator, **options)
        # 1 - mu.z = -log(u + (1 - u) exp(-2 kappa)) / kappa, and 0 at u = 1.
        drop = -torch.log1p((1 - u[0]) * torch.expm1(-2 * kappa)) / kappa
        drop = drop.clamp(0, 2)
        radius, angle = torch.sqrt(drop * (2 - drop)), 2 * math.pi * u[1]
        upright = torch.stack((radius * angle.cos(), radius * angle.sin(), 1 - drop), -1)
        # The reflection along mu - e maps the pole e to mu; so does minus that along mu + e. The longer of the two is used, as it
        # has the smaller rounding error.
        sign = torch.where(mean[2] < 0, -1.0, 1.0).to(**options)
        axis = mean + sign * mean.new_tensor([0.0, 0.0, 1.0])
        turned = upright - 2 * (upright @ axis).unsqueeze(-1) * axis / axis.square().sum()
        return (-sign * turned).to(like["dtype"])

    def _mean_and_concentration(self) -> tuple[Tensor, Tensor]:
        """mu at unit length, and kappa."""
        pole = self.pole / self.pole.detach().abs().amax().clamp_min(1e-30)
        limits = torch.finfo(self.log_concentration.dtype)
        kappa = self.log_concentration.exp().clamp(max(_FLATTEST, limits.tiny), min(_SHARPEST, limits.max))
        return pole / torch.linalg.vector_norm(pole), kappa
