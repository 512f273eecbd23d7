"""Flows on the sphere: a coupling of height and direction in R^D, and an autoregressive transform in R^3."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pushforward.errors import ConfigError, KindError
from pushforward.likelihood import SPHERE, Measure
from pushforward.networks.mlp import MLP
from pushforward.numerics import Noise, full_precision
from pushforward.numerics.checks import check_integer, check_widths
from pushforward.registry import register
from pushforward.transforms.base import Step, Transform, check_context
from pushforward.transforms.splines.rational_quadratic import CircularSplineTransformer, SplineTransformer
from pushforward.transforms.transformers.base import Transformer, check_transformer
from pushforward.transforms.validation import vector_width

__all__ = ["SphereAutoregressive", "SphereCoupling"]


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
        self.features, self.bins, self.hidden = features, bins, check_widths("hidden", hidden)
        self.context = check_integer("context", context, 0)
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
        with full_precision(x):
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


@register("transforms")
class SphereAutoregressive(Transform):
    """Turns a point of the sphere into height and angle, moves both, and back (Rezende et al. 2020, sec. 2.3.1).

    With x = (sqrt(1 - h^2) cos a, sqrt(1 - h^2) sin a, h),

        h' = spline(h; context) on [-1, 1],    a' = law(a; network(h, context)) on the circle.

    The cylinder (h, a) has the sphere's area element (Archimedes), so the log-determinant with respect to surface area
    is log dh'/dh + log da'/da. A vector of another length keeps its length, which makes this a bijection of R^3 with the
    same log-determinant: it can stand in any chain, and under a base on the sphere (:class:`~pushforward.distributions.UniformSphere`)
    gives densities with respect to surface area, on that sphere and on no other surface. Both directions are one pass.

    The network's outputs fade with 1 - h^2 and the spline has slope 1 at both ends, so at the poles the transform is the
    identity and densities are continuous there. One such transform has all densities within reach but at the poles; in a stack,
    put a rotation (:class:`~pushforward.transforms.Householder`) between two, which moves the poles. Heights and angles are
    computed in float64.

    Args:
        features: 3.
        transformer: the periodic law of the angle; a circular spline of 8 bins by default.
        bins: of the height's spline.
        hidden: widths of the networks' hidden layers.
        context: width of the context.

    Raises:
        ConfigError: for other features than 3, or a law that is not periodic.

    Example:
        >>> import torch
        >>> from pushforward import distributions, transforms, models
        >>> parts = [transforms.SphereAutoregressive(hidden=(16,)), transforms.Householder(3), transforms.SphereAutoregressive(hidden=(16,))]
        >>> model = models.Flow(transforms.Chain(*parts), distributions.UniformSphere(3))
        >>> result = model.evaluate(torch.tensor([[0.0, 0.6, -0.8]]))
        >>> str(result.measure), result.kind.value
        ('Manifold(2, 3)', 'exact')
    """

    valid_on_manifold = True

    def __init__(
        self,
        features: int = 3,
        transformer: Transformer | None = None,
        *,
        bins: int = 8,
        hidden: tuple[int, ...] = (64, 64),
        context: int = 0,
    ) -> None:
        if features != 3 or isinstance(features, bool):
            raise ConfigError(f"SphereAutoregressive acts on points in R^3, so features must be 3; got {features!r}.")
        super().__init__(3)
        self.features, self.transformer = 3, check_transformer(transformer or CircularSplineTransformer())
        if not self.transformer.periodic:
            raise ConfigError(f"the angle needs a periodic law, as MobiusTransformer(); got {transformer!r}.")
        self.bins, self.hidden, self.context = (
            bins,
            check_widths("hidden", hidden),
            check_integer("context", context, 0),
        )
        self.height = SplineTransformer(bins, 1.0)
        self.network = MLP(1 + context, self.transformer.parameters, hidden, input_bound=10.0, output_gain=0.3)
        count = self.height.parameters
        self.height_network = MLP(context, count, hidden, input_bound=10.0, output_gain=0.1) if context else None
        self.free = None if context else nn.Parameter(torch.zeros(count))

    def measure(self, latent: Measure) -> Measure:
        """Unchanged: volume, or area of a sphere about 0.

        Raises:
            KindError: for a density on any other surface, which is bent and stretched.
        """
        if latent.name == "Manifold" and latent.manifold != SPHERE:
            raise KindError(
                f"SphereAutoregressive keeps the area of spheres about 0 alone, and the density on {latent} behind it may lie on "
                "another surface: use a base on the sphere, as UniformSphere(3), with transforms that keep lengths between."
            )
        return super().measure(latent)

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
        check_context(context, self.context, "SphereAutoregressive")
        with full_precision(x):
            # A length is kept, so any scaling may be taken out first, without gradient: squares stay in range.
            size = x.detach().abs().amax(-1, keepdim=True)
            scaled = (x / torch.where(size > 0, size, 1.0)).double()
            a, b, c = scaled.unbind(-1)
            # Near the axis the transform is the identity but for terms of third order, and the angle loses its meaning.
            on_axis = a.square() + b.square() <= 1e-14 * c.square()
            a = torch.where(on_axis, 1.0, a)
            length = torch.sqrt(a * a + b * b + c * c)
            height, angle = c / length, torch.atan2(b, a)
            raw_height = self._raw_height(height, context)
            if inverse:
                moved, slope = self.height.inverse(height, raw_height)
                turned, turn_slope = self.transformer.inverse(angle, self._raw_angle(moved, context))
            else:
                moved, slope = self.height.forward(height, raw_height)
                turned, turn_slope = self.transformer.forward(angle, self._raw_angle(height, context))
            radius = length * torch.sqrt(((1 - moved) * (1 + moved)).clamp_min(1e-30))
            back = torch.stack((radius * turned.cos(), radius * turned.sin(), length * moved), -1)
            y = torch.where(on_axis.unsqueeze(-1), scaled, back) * torch.where(size > 0, size, 1.0)
            return y.to(x.dtype), torch.where(on_axis, 0.0, slope + turn_slope).to(x.dtype)

    def _raw_height(self, height: Tensor, context: Tensor | None) -> Tensor:
        if self.height_network is None:
            assert self.free is not None
            return self.free.double().reshape(-1, *(1,) * height.dim()).expand(-1, *height.shape)
        return self.height_network(context).double().movedim(-1, 0)

    def _raw_angle(self, height: Tensor, context: Tensor | None) -> Tensor:
        seen = height.unsqueeze(-1).to(self.network.last.weight.dtype)
        if self.context and context is not None:
            seen = torch.cat((seen, context), -1)
        return (self.network(seen).double() * (1 - height.square()).unsqueeze(-1)).movedim(-1, 0)
