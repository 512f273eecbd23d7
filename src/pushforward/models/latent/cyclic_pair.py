"""A cyclic pair of conditionals, q(z | x) and p(x | z) (arXiv 2106.15962).

The penalty measures how far the pair is from one joint distribution.
"""

from __future__ import annotations

import math

import torch
from torch import Size, Tensor

from pushforward.distributions import Distribution
from pushforward.likelihood import Kind, Lebesgue, Measure
from pushforward.models.latent.autoencoder import Codec
from pushforward.numerics import Noise, bound_square, logmeanexp, normal_like, soft_clamp, sum_event
from pushforward.transforms import Step, Transform
from pushforward.transforms.base import Shape

__all__ = ["Cyclic", "Start"]

LOG_2PI = math.log(2 * math.pi)


class Cyclic(Transform):
    """The pair q(z | x) and p(x | z); ``encode`` draws z and estimates log p(x) with it."""

    max_log_scale = 7.0
    compatible: Tensor

    def __init__(
        self, shape: Shape, latent: int, scale: float, samples: int, flow: Transform | None, codec: Codec
    ) -> None:
        super().__init__(shape, latent)
        self.scale, self.samples, self.flow, self.codec = scale, samples, flow, codec
        self.latent, self.extra = latent, 0 if flow is None else flow.context
        self.elbo, self.steps = False, 1
        self.register_buffer("compatible", torch.tensor(False))

    @property
    def kind(self) -> Kind:  # pyright: ignore[reportIncompatibleVariableOverride]
        """LOWER_BOUND with a prior; without one UPPER_BOUND for a pair that passed the test, else ESTIMATE."""
        if self.elbo:
            return Kind.LOWER_BOUND
        return Kind.UPPER_BOUND if not self.compatible.is_meta and bool(self.compatible) else Kind.ESTIMATE

    def train(self, mode: bool = True) -> Cyclic:
        """Set the mode of the module; training mode resets the result of the test of compatibility, which was of other weights."""
        if mode:
            self.compatible.fill_(False)
        return super().train(mode)

    def measure(self, latent: Measure) -> Measure:
        """Lebesgue(d) becomes Lebesgue(D)."""
        return Lebesgue(math.prod(self.in_shape))

    def transport(self, e: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """z = T(e; x) for standard normal e, ``(*batch, latent)``, and log q(z | x)."""
        mean, log_scale, h = self.codec.encode(x).split((self.latent, self.latent, self.extra), -1)
        log_scale = soft_clamp(log_scale, self.max_log_scale)
        log_q = (-0.5 * e * e - 0.5 * LOG_2PI - log_scale).sum(-1)
        z = mean + log_scale.exp() * e
        if self.flow is None:
            return z, log_q
        step = self.flow.encode(z, h if self.extra else None)
        return step.z, log_q - step.contribution

    def log_p(self, x: Tensor, z: Tensor) -> Tensor:
        """log N(x; G(z), scale^2 I)."""
        e = bound_square((x - self.codec.decode(z)) / self.scale, math.prod(self.in_shape))
        return sum_event(-0.5 * e * e - 0.5 * LOG_2PI - math.log(self.scale), len(self.in_shape))

    def draw_x(self, z: Tensor, generator: torch.Generator) -> Tensor:
        """x ~ p(x | z)."""
        mean = self.codec.decode(z)
        return mean + self.scale * normal_like(mean, len(self.in_shape), generator)

    def draw_z(self, x: Tensor, noise: Noise) -> Tensor:
        """z ~ q(z | x)."""
        return self.transport(normal_like(x, len(self.in_shape), noise, (self.latent,)), x)[0]

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """z ~ q(z | x), with -log mean_k 1/p(x | z_k), or with log p(x | z) - log q(z | x) if there is a prior."""
        dims, count = len(self.in_shape), 1 if self.elbo else self.samples
        e = normal_like(x, dims, noise, (count, self.latent))
        repeated = x.unsqueeze(x.dim() - dims).expand(*e.shape[:-1], *self.in_shape)
        z, log_q = self.transport(e, repeated)
        log_p = self.log_p(repeated, z)
        value = (log_p - log_q).squeeze(-1) if self.elbo else -logmeanexp(-log_p, -1)
        return Step(z[..., 0, :], value)

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """The last x of a Gibbs chain that starts at z, with a generator; the mean of p(x | z) without one."""
        if not isinstance(noise, torch.Generator):
            return self.codec.decode(z)
        x = self.draw_x(z, noise)
        for _ in range(0 if self.elbo else self.steps - 1):
            x = self.draw_x(self.draw_z(x, noise), noise)
        return x

    def score(self, e: Tensor, x: Tensor, parts: tuple[float, float] = (1.0, 1.0)) -> Tensor:
        """grad_x [ log p(x | z) - log q(z | x) ] of one row, at the fixed z = T(e; x).

        q is known only along its draws: log q(T(e; x) | x) = l(e, x). At a fixed z, de/dx = -T_e^-1 T_x, so
        grad_x log q = l_x - T_x^T T_e^-T l_e. ``parts`` are weights of log p and log q.
        """
        z = self.transport(e, x)[0]
        slope = torch.func.grad(lambda u: self.transport(u, x)[1])(e)
        back = torch.linalg.solve(self._jacobian(e, x).mT, slope)

        def along(t: Tensor) -> Tensor:
            moved, log_q = self.transport(e, t)
            return parts[0] * self.log_p(t, z) - parts[1] * (log_q - (back * moved).sum())

        return torch.func.grad(along)(x)

    def mixed(self, e: Tensor, x: Tensor, probe: Tensor, parts: tuple[float, float] = (1.0, 1.0)) -> Tensor:
        """grad_z ( probe . grad_x [log p - log q] ) of one row, ``(latent,)``: the mixed Hessian times a probe in x."""
        slope = torch.func.grad(lambda u: (self.score(u, x, parts) * probe).sum())(e)
        return torch.linalg.solve(self._jacobian(e, x).mT, slope)

    def _jacobian(self, e: Tensor, x: Tensor) -> Tensor:
        return torch.func.jacrev(lambda u: self.transport(u, x)[0])(e)

    def penalty(self, x: Tensor, noise: Noise, probes: int | None, parts: tuple[float, float] = (1.0, 1.0)) -> Tensor:
        """Squared norm of the mixed Hessian of each row at one z ~ q(z | x), ``(n,)``.

        It is unbiased with normal probes, the same for p and q, and exact with None, by one probe for each coordinate
        of x.
        """
        dims = len(self.in_shape)
        e = normal_like(x, dims, noise, (self.latent,))
        if probes is None:
            size = math.prod(self.in_shape)
            directions = torch.eye(size, dtype=x.dtype, device=x.device).reshape(size, *self.in_shape)
            directions = directions.expand(len(x), *directions.shape)
        elif isinstance(noise, torch.Generator):
            directions = normal_like(x, dims, noise, (probes, *self.in_shape))
        else:  # The noise of a row repeats from its start, so z and the probes take separate parts of one longer draw.
            long = normal_like(x, dims, noise, (self.latent + probes * math.prod(self.in_shape),))
            directions = long[:, self.latent :].reshape(-1, probes, *self.in_shape)
        each = torch.func.vmap(lambda u, t, p: torch.func.vmap(lambda v: self.mixed(u, t, v, parts))(p))(
            e, x, directions
        )
        return each.square().sum((-2, -1)) / (1 if probes is None else probes)


class Start(Distribution):
    """N(0, I), from which Gibbs chains start.

    In pretraining it is the prior of z; otherwise its log-density counts as 0.
    """

    def __init__(self, features: int) -> None:
        super().__init__(features)
        self.prior = False

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """log N(z; 0, I), or 0."""
        if not self.prior:
            return z.new_zeros(z.shape[:-1])
        z = bound_square(z, z.shape[-1])
        return (-0.5 * z * z - 0.5 * LOG_2PI).sum(-1)

    def sample(self, batch: Size, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """``(*batch, latent)``."""
        return torch.randn((*batch, *self.shape), generator=generator, **self.like(generator))
