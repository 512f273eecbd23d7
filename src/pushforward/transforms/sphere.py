"""Flows on the sphere: a coupling of height and direction in R^D, and an autoregressive transform in R^3."""

from __future__ import annotations

from abc import abstractmethod

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


class SphereTransform(Transform):
    """Shared parts of transforms of the sphere, which keep the length of every vector. A subclass defines :meth:`_map`."""

    valid_on_manifold = True

    def measure(self, latent: Measure) -> Measure:
        """Unchanged: volume, or area of a sphere about 0.

        Raises:
            KindError: for a density on any other surface, whose area the transform changes.
        """
        if latent.name == "Manifold" and latent.manifold != SPHERE:
            name = type(self).__name__
            raise KindError(
                f"the log-determinant of {name} is correct only for densities on a sphere around 0, and {latent} may be another "
                f"surface: use a base on the sphere, such as UniformSphere({self.in_shape[0]}), and only transforms that keep "
                f"lengths between it and {name}."
            )
        return super().measure(latent)

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """Data to noise in one pass."""
        return Step(*self._scaled_map(x, context, inverse=False))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Noise to data in one pass."""
        return self._scaled_map(z, context, inverse=True)[0]

    def decode_with_contribution(
        self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None
    ) -> tuple[Tensor, Tensor]:
        """Noise to data in one pass, with the contribution of ``encode``."""
        return self._scaled_map(z, context, inverse=True)

    @abstractmethod
    def _map(self, x: Tensor, context: Tensor | None, *, inverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Image of float64 vectors, log-determinant of ``encode``, and where x is so near the axis that it stays as it is."""

    def _scaled_map(self, x: Tensor, context: Tensor | None, *, inverse: bool) -> tuple[Tensor, Tensor]:
        check_context(context, self.context, type(self).__name__)
        with full_precision(x):
            # Lengths are kept, so x can be divided by any factor, without gradient, so that squares neither over- nor underflow.
            largest = x.detach().abs().amax(-1, keepdim=True)
            factor = torch.where(largest > 0, largest, 1.0)
            scaled = (x / factor).double()
            image, log_det, on_axis = self._map(scaled, context, inverse=inverse)
            y = torch.where(on_axis.unsqueeze(-1), scaled, image) * factor
            return y.to(x.dtype), torch.where(on_axis, 0.0, log_det).to(x.dtype)


@register("transforms")
class SphereCoupling(SphereTransform):
    """One level of the recursion of the sphere in R^D (Rezende et al. 2020, sec. 2.3.2), as a coupling.

    With x = (sqrt(1 - h^2) u, h) for a direction u of R^(D-1),

        h' = spline(h; network(u, context)) on [-1, 1],    u' = u.

    The sphere's area element is (1 - h^2)^((D-3)/2) dh du, so the log-determinant with respect to surface area is
    log dh'/dh + (D - 3)/2 [log(1 - h'^2) - log(1 - h^2)]; on the sphere in R^3 the second term is 0. Put a rotation
    (:class:`~pushforward.transforms.Householder`) between two such transforms, so that every direction is a height once. In
    R^3 see also :class:`~pushforward.transforms.SphereAutoregressive`, which transforms the angle too.

    A vector of any other length keeps its length, which makes this a bijection of R^D with the same log-determinant. The
    spline has slope 1 at both ends, so near the poles the transform is the identity up to terms of third order. Both
    directions take one pass. Heights are computed in float64.

    Args:
        features: dimension D of the space, at least 3.
        bins: number of bins of the spline.
        hidden: widths of the network's hidden layers.
        context: width of the context.

    Raises:
        ConfigError: for fewer than 3 features, or impossible sizes.

    Example:
        >>> import torch
        >>> from pushforward import distributions, transforms, models
        >>> layers = [transforms.SphereCoupling(4, hidden=(16,)) for _ in range(2)]
        >>> chain = transforms.Chain(layers[0], transforms.Householder(4), layers[1])
        >>> model = models.Flow(chain, distributions.UniformSphere(4))
        >>> result = model.evaluate(torch.tensor([[0.0, 0.6, 0.0, -0.8]]))
        >>> str(result.measure), result.kind.value
        ('Manifold(3, 4)', 'exact')
    """

    axis_threshold = 1e-10
    """Squared distance from the axis, in units of the squared height, below which a vector stays as it is."""

    def __init__(
        self, features: int = 4, *, bins: int = 8, hidden: tuple[int, ...] = (64, 64), context: int = 0
    ) -> None:
        super().__init__(features)
        features = vector_width(features, "SphereCoupling")
        if features < 3:
            raise ConfigError(f"features of SphereCoupling must be at least 3; got {features!r}.")
        self.features, self.bins, self.hidden = features, bins, check_widths("hidden", hidden)
        self.context = check_integer("context", context, 0)
        self.height = SplineTransformer(bins, 1.0)
        inputs = features - 1 + context
        self.network = MLP(inputs, self.height.parameters, hidden, input_bound=10.0, output_gain=0.3)

    def _map(self, x: Tensor, context: Tensor | None, *, inverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        across, c = x[..., :-1], x[..., -1]
        square = across.square().sum(-1)
        # On the axis the direction is not defined; any direction gives finite numbers, which are not used.
        on_axis = square <= self.axis_threshold * c.square()
        first = torch.arange(self.features - 1, device=x.device) == 0
        across = torch.where(on_axis.unsqueeze(-1), first.to(x.dtype), across)
        square = torch.where(on_axis, 1.0, square)
        radius, length = square.sqrt(), torch.sqrt(square + c * c)
        height, direction = c / length, across / radius.unsqueeze(-1)
        raw = self._raw(direction, context)
        new_height, log_det = (self.height.inverse if inverse else self.height.forward)(height, raw)
        new_square = ((1 - new_height) * (1 + new_height)).clamp_min(1e-30)  # 1 - h'^2
        if self.features > 3:
            # log_det is log dh'/dh of encode in both directions, so the ratio of the radii must be that of encode too.
            log_ratio = new_square.log() - 2 * (radius / length).log()
            log_det = log_det + (self.features - 3) / 2 * (-log_ratio if inverse else log_ratio)
        image = (direction * (length * new_square.sqrt()).unsqueeze(-1), (length * new_height).unsqueeze(-1))
        return torch.cat(image, -1), log_det, on_axis

    def _raw(self, direction: Tensor, context: Tensor | None) -> Tensor:
        inputs = direction.to(self.network.last.weight.dtype)
        if self.context and context is not None:
            inputs = torch.cat((inputs, context), -1)
        return self.network(inputs).double().movedim(-1, 0)


@register("transforms")
class SphereAutoregressive(SphereTransform):
    """Transforms the height of a point on the sphere in R^3, then its angle given the height (Rezende et al. 2020, sec. 2.3.1).

    With x = (sqrt(1 - h^2) cos a, sqrt(1 - h^2) sin a, h),

        h' = spline(h; context) on [-1, 1],    a' = transformer(a; network(h, context)) on the circle.

    The cylinder (h, a) has the sphere's area element (Archimedes), so the log-determinant with respect to surface area
    is log dh'/dh + log da'/da. A vector of any other length keeps its length, which makes this a bijection of R^3 with the
    same log-determinant. So it may be part of any chain, and with a base on the sphere
    (:class:`~pushforward.distributions.UniformSphere`) it gives densities with respect to surface area, on that sphere and on
    no other surface. Both directions take one pass.

    The network's outputs are multiplied by 1 - h^2 and the spline has slope 1 at both ends, so at the poles the transform is
    the identity and densities are continuous. One such transform can represent all densities except at the poles; put a
    rotation (:class:`~pushforward.transforms.Householder`) between two, so that the poles differ. Heights and angles are
    computed in float64.

    Args:
        features: 3.
        transformer: periodic transformer of the angle; a circular spline of 8 bins by default.
        bins: number of bins of the spline of the height.
        hidden: widths of the networks' hidden layers.
        context: width of the context.

    Raises:
        ConfigError: for other features than 3, or a transformer that is not periodic.

    Example:
        >>> import torch
        >>> from pushforward import distributions, transforms, models
        >>> layers = [transforms.SphereAutoregressive(hidden=(16,)) for _ in range(2)]
        >>> chain = transforms.Chain(layers[0], transforms.Householder(3), layers[1])
        >>> model = models.Flow(chain, distributions.UniformSphere(3))
        >>> result = model.evaluate(torch.tensor([[0.0, 0.6, -0.8]]))
        >>> str(result.measure), result.kind.value
        ('Manifold(2, 3)', 'exact')
    """

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
            raise ConfigError(f"features must be 3, because SphereAutoregressive acts on R^3; got {features!r}.")
        super().__init__(3)
        self.features, self.transformer = 3, check_transformer(transformer or CircularSplineTransformer())
        if not self.transformer.periodic:
            raise ConfigError(f"transformer must be periodic, such as MobiusTransformer(); got {transformer!r}.")
        self.bins, self.hidden = bins, check_widths("hidden", hidden)
        self.context = check_integer("context", context, 0)
        self.height = SplineTransformer(bins, 1.0)
        self.network = MLP(1 + context, self.transformer.parameters, hidden, input_bound=10.0, output_gain=0.3)
        count = self.height.parameters
        self.height_network = MLP(context, count, hidden, input_bound=10.0, output_gain=0.1) if context else None
        self.free = None if context else nn.Parameter(torch.zeros(count))

    def _map(self, x: Tensor, context: Tensor | None, *, inverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        a, b, c = x.unbind(-1)
        # Near the axis the transform is the identity up to terms of third order, and the angle is not defined.
        on_axis = a.square() + b.square() <= 1e-14 * c.square()
        a = torch.where(on_axis, 1.0, a)
        length = torch.sqrt(a * a + b * b + c * c)
        height, angle = c / length, torch.atan2(b, a)
        raw_height = self._raw_height(height, context)
        if inverse:
            new_height, log_slope = self.height.inverse(height, raw_height)
            new_angle, log_angle_slope = self.transformer.inverse(angle, self._raw_angle(new_height, context))
        else:
            new_height, log_slope = self.height.forward(height, raw_height)
            new_angle, log_angle_slope = self.transformer.forward(angle, self._raw_angle(height, context))
        radius = length * torch.sqrt(((1 - new_height) * (1 + new_height)).clamp_min(1e-30))
        image = torch.stack((radius * new_angle.cos(), radius * new_angle.sin(), length * new_height), -1)
        return image, log_slope + log_angle_slope, on_axis

    def _raw_height(self, height: Tensor, context: Tensor | None) -> Tensor:
        if self.height_network is None:
            assert self.free is not None
            return self.free.double().reshape(-1, *(1,) * height.dim()).expand(-1, *height.shape)
        return self.height_network(context).double().movedim(-1, 0)

    def _raw_angle(self, height: Tensor, context: Tensor | None) -> Tensor:
        inputs = height.unsqueeze(-1).to(self.network.last.weight.dtype)
        if self.context and context is not None:
            inputs = torch.cat((inputs, context), -1)
        return (self.network(inputs).double() * (1 - height.square()).unsqueeze(-1)).movedim(-1, 0)
