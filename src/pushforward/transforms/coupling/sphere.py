"""Coupling on the sphere of any dimension: the height moves, given the direction around the axis."""

from __future__ import annotations

import torch
from torch import Tensor

from pushforward.errors import ConfigError
from pushforward.networks.mlp import MLP, check_hidden, check_width
from pushforward.numerics import Noise
from pushforward.registry import register
from pushforward.transforms.base import Step, Transform, check_context
from pushforward.transforms.splines.rational_quadratic import SplineTransformer
from pushforward.transforms.validation import vector_width

__all__ = ["SphereCoupling"]

AXIS = 1e-10
"""Square of the distance from the axis, over that from the center, below which the transform is the identity."""


@register("transforms")
class SphereCoupling(Transform):
    """One level of the recursion of the sphere in R^D (Rezende et al. 2020, sec. 2.3.2), as a coupling.

    With x = (sqrt(1 - h^2) u, h) for a direction u of R^(D-1),

        h' = spline(h; network(u, context)) on [-1, 1],    u' = u.

    The sphere's area element is (1 - h^2)^((D-3)/2) dh du, so the log-determinant with respect to surface area is
    log dh'/dh + (D - 3)/2 [log(1 - h'^2) - log(1 - h^2)]; on the sphere in R^3 the second term vanishes. Between two such
    transforms put a rotation (:class:`~pushforward.transforms.Householder`), so that every direction becomes a height in its turn. In
    R^3 see also :class:`~pushforward.transforms.SphereAutoregressive`, which moves the angle too.

    A vector of another length keeps its length, which makes this a bijection of R^D with the same log-determinant. The
    spline has slope 1 at both ends, so at the poles the transform is the identity but for terms of third order. Both directions
    are one pass. Heights are computed in float64.

    Args:
        features: D, at least 3.
        bins: of the spline.
        hidden: widths of the network's hidden layers.
        context: width of the context.

    Raises:
        ConfigError: for fewer than 3 features, or impossible sizes.

    Example:
        >>> import torch
        >>> from pushforward import distributions, transforms, models
        >>> parts = [transforms.SphereCoupling(4, hidden=(16,)), transforms.Householder(4), transforms.SphereCoupling(4, hidden=(16,))]
        >>> model = models.Flow(transforms.Chain(*parts), distributions.UniformSphere(4))
        >>> result = model.evaluate(torch.tensor([[0.0, 0.6, 0.0, -0.8]]))
        >>> str(result.measure), result.kind.value
        ('Manifold(3, 4)', 'exact')
    """

    valid_on_manifold = True

    def __init__(
        self, features: int = 4, *, bins: int = 8, hidden: tuple[int, ...] = (64, 64), context: int = 0
    ) -> None:
        super().__init__(features)
        if vector_width(features, "SphereCoupling") < 3:
            raise ConfigError(f"SphereCoupling acts on points in R^D with D of at least 3; got {features!r}.")
        self.features, self.bins, self.hidden = features, bins, check_hidden(hidden, False)
        self.context = check_width("context", context, 0)
        self.height = SplineTransformer(bins, 1.0)
        inputs = features - 1 + context
        self.network = MLP(inputs, self.height.parameters, hidden, input_bound=10.0, output_gain=0.3)

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """Data to noise in one pass."""
        return Step(*self._move(x, context, inverse=False))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Noise to data in one pass."""
        return self._move(z, context, inverse=True)[0]

    def decode_with_contribution(
        self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None
    ) -> tuple[Tensor, Tensor]:
        """Noise to data in one pass, with the contribution of ``encode``."""
        return self._move(z, context, inverse=True)

    def _move(self, x: Tensor, context: Tensor | None, inverse: bool) -> tuple[Tensor, Tensor]:
        check_context(context, self.context, "SphereCoupling")
        with torch.autocast(x.device.type, enabled=False):
            # A length is kept, so any scaling may be taken out first, without gradient: squares stay in range.
            size = x.detach().abs().amax(-1, keepdim=True)
            scaled = (x / torch.where(size > 0, size, 1.0)).double()
            rest, c = scaled[..., :-1], scaled[..., -1]
            square = rest.square().sum(-1)
            # Near the axis the direction loses its meaning; any stands in for it.
            on_axis = square <= AXIS * c.square()
            first = torch.arange(self.features - 1, device=x.device) == 0
            rest = torch.where(on_axis.unsqueeze(-1), first.to(scaled.dtype), rest)
            square = torch.where(on_axis, 1.0, square)
            around, length = square.sqrt(), torch.sqrt(square + c * c)
            height, direction = c / length, rest / around.unsqueeze(-1)
            raw = self._raw(direction, context)
            moved, slope = (self.height.inverse if inverse else self.height.forward)(height, raw)
            thin = ((1 - moved) * (1 + moved)).clamp_min(1e-30)  # 1 - h'^2
            volume = slope
            if self.features > 3:
                # slope is log dh'/dh of encode in both directions, and so must be the ratio of the circles.
                ratio = thin.log() - 2 * (around / length).log()
                volume = slope + (self.features - 3) / 2 * (-ratio if inverse else ratio)
            back = torch.cat((direction * (length * thin.sqrt()).unsqueeze(-1), (length * moved).unsqueeze(-1)), -1)
            y = torch.where(on_axis.unsqueeze(-1), scaled, back) * torch.where(size > 0, size, 1.0)
            return y.to(x.dtype), torch.where(on_axis, 0.0, volume).to(x.dtype)

    def _raw(self, direction: Tensor, context: Tensor | None) -> Tensor:
        seen = direction.to(self.network.last.weight.dtype)
        if self.context and context is not None:
            seen = torch.cat((seen, context), -1)
        return self.network(seen).double().movedim(-1, 0)
