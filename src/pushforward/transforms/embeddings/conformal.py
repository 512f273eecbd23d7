"""Conformal (angle-preserving) transforms, which scale all directions at a point by the same factor, and their embeddings."""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pushforward.errors import ConfigError
from pushforward.likelihood import REAL, Kind
from pushforward.numerics import Noise, full_precision
from pushforward.numerics.checks import check_number, check_positive
from pushforward.registry import register
from pushforward.transforms.base import Shape, Step, Transform, named
from pushforward.transforms.chain import Chain
from pushforward.transforms.elementwise.normalization import moments, per_channel
from pushforward.transforms.embeddings.embedding import Embedding
from pushforward.transforms.linear.factored import reflections_product
from pushforward.transforms.validation import seeded_normal, vector_width

__all__ = ["ConformalEmbedding", "ConformalScale", "Inversion", "PiecewiseOrthogonal", "SpecialConformal"]


@register("transforms")
class ConformalScale(Transform):
    """z = (x - shift) exp(log_scale) with one number for all coordinates; contribution D log_scale.

    :meth:`initialize` uses the means of the training rows (of each channel, for images) and the root mean square of their
    standard deviations: a standardization that preserves angles (Ross and Cresswell 2021). Both are then trained. For
    constant data the scale stays 1.

    Args:
        features: event shape.

    Example:
        >>> import torch
        >>> from pushforward.transforms import ConformalScale
        >>> ConformalScale(2).initialize(torch.tensor([[1.0, 0.0], [1.0, 2.0]]))
        tensor([[ 0.0000, -1.4142],
                [ 0.0000,  1.4142]])
    """

    angle_preserving = True
    initialized: Tensor

    def __init__(self, features: int | Shape) -> None:
        super().__init__(features)
        self.features = features
        self.shift = nn.Parameter(torch.zeros(per_channel(self.in_shape)))
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.register_buffer("initialized", torch.tensor(False))

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """(x - shift) exp(log_scale)."""
        contribution = (math.prod(self.in_shape) * self.log_scale).expand(self.batch_shape(x))
        return Step((x - self.shift) * self.log_scale.exp(), contribution)

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """z exp(-log_scale) + shift."""
        return z / self.log_scale.exp() + self.shift  # dividing by the factor of encode keeps its rounding

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Set shift and scale from the rows of x, unless they are set; return z.

        Raises:
            InputError: if there is no row.
        """
        if not self.initialized:
            mean, std = moments(x, self.in_shape, tuple(self.shift.shape))
            size = std.square().mean().sqrt()
            self.shift.copy_(mean)
            self.log_scale.copy_(torch.where(size > 0, -size.log(), 0.0))
            self.initialized.fill_(True)
        return self.encode(x).z


_POLE_DISTANCE = 1e-30
"""Distance that is used instead of 0 at the pole; it is smaller than the rounding of any other distance."""


class Mobius(Transform):
    """Shared parts of conformal (angle-preserving) transforms with one pole, computed in float64.

    The pole is mapped to a point at distance 1e30, never to NaN. A subclass defines :meth:`_map`.
    """

    angle_preserving = True

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """Data to noise."""
        return Step(*self._map(x, inverse=False))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Noise to data."""
        return self._map(z, inverse=True)[0]

    def decode_with_contribution(
        self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None
    ) -> tuple[Tensor, Tensor]:
        """Noise to data, with the contribution of ``encode``: minus the log-determinant of the inverse."""
        x, contribution = self._map(z, inverse=True)
        return x, -contribution

    @abstractmethod
    def _map(self, x: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        """The image of x, and the log-determinant in this direction."""


@register("transforms")
class Inversion(Mobius):
    """z = c + (x - c) / norm(x - c)^2: exchanges the inside and the outside of the unit sphere around c. Its own inverse.

    Contribution -2 D log norm(x - c). The pole c is mapped to infinity.

    Args:
        features: number of coordinates D.
        center: initial value of all coordinates of c, which is learned.

    Raises:
        ConfigError: if the event is not a vector.

    Example:
        >>> import torch
        >>> from pushforward.transforms import Inversion
        >>> z, contribution = Inversion(2, center=0.0)(torch.tensor([[3.0, 4.0]]))
        >>> z.detach(), contribution.exp().detach()                   # 1/25 of the length; area 5^-4
        (tensor([[0.1200, 0.1600]]), tensor([0.0016]))
    """

    def __init__(self, features: int, center: float = 2.0) -> None:
        super().__init__(features)
        width = vector_width(features, "Inversion")
        check_number("center", center, -math.inf, math.inf)
        self.features, self.center = features, center
        self.pole = nn.Parameter(torch.full((width,), float(center)))

    def _map(self, x: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        pole = self.pole.double()
        offset = x.double() - pole
        offset = torch.where((offset == 0).all(-1, keepdim=True), _POLE_DISTANCE, offset)
        square = offset.square().sum(-1, keepdim=True)
        z = pole + offset / square
        return z.to(x.dtype), (-self.in_shape[0] * square.log().squeeze(-1)).to(x.dtype)


@register("transforms")
class SpecialConformal(Mobius):
    """z = (x + b norm(x)^2) / q with q = 1 + 2 b.x + norm(b)^2 norm(x)^2: an inversion, a shift by b, and an inversion.

    Contribution -D log q, with lambda = 1 / q. The inverse is the same with -b (Ross and Cresswell 2021, arXiv 2106.05275). It
    maps a plane through 0 to a sphere through 0 of radius 1 / (2 norm(b_perp)), with b_perp the component of b orthogonal to
    the plane. q is 0 only at the pole -b / norm(b)^2. b starts at 0, the identity, or at random.

    Args:
        features: number of coordinates D.
        spread: standard deviation of the initial b.
        seed: seed of the initial b.

    Raises:
        ConfigError: if the event is not a vector.

    Example:
        >>> import torch
        >>> from pushforward.transforms import SpecialConformal
        >>> layer = SpecialConformal(3, spread=0.5)
        >>> x = torch.tensor([[1.0, 2.0, 3.0]])
        >>> torch.allclose(layer.decode(layer.encode(x).z), x, atol=1e-5)
        True
    """

    def __init__(self, features: int, spread: float = 0.0, seed: int = 0) -> None:
        super().__init__(features)
        width = vector_width(features, "SpecialConformal")
        check_positive("spread", spread, zero=True)
        self.features, self.spread, self.seed = features, spread, seed
        self.shift = nn.Parameter(spread * seeded_normal(width, seed=seed))

    def _map(self, x: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        b, y = self.shift.double(), x.double()
        b = -b if inverse else b
        bend, along = b.square().sum(), (y * b).sum(-1, keepdim=True)
        # In components of y along and across b nothing cancels near the pole. If b is too short to have a direction, along is 0.
        short = bend < 1e-16
        coefficient = torch.where(short, 0.0, along / torch.where(short, 1.0, bend))
        across = y - b * coefficient
        square = across.square().sum(-1, keepdim=True)
        lift = 1 + along
        lift = torch.where((lift == 0) & (square == 0), _POLE_DISTANCE, lift)  # at the pole
        q = torch.where(short, 1 + 2 * along, lift.square()) + bend * square
        z = (across + b * (coefficient * lift + square)) / q
        return z.to(x.dtype), (-self.in_shape[0] * q.log().squeeze(-1)).to(x.dtype)


@register("transforms")
class PiecewiseOrthogonal(Transform):
    """z = Q1 x if norm(x) >= radius sqrt(D), else Q2 x, with Q1 and Q2 orthogonal; contribution 0 (Ross and Cresswell 2021,
    arXiv 2106.05275).

    Both keep the norm, so the inverse can choose between them too. It is discontinuous on that sphere, a set of measure zero,
    and keeps lengths and angles in each piece. For images, the channels of each pixel are transformed by the norm of those
    channels.

    Args:
        features: number of coordinates D, or (channels, height, width); D is then the number of channels.
        radius: root mean square of the coordinates at which the pieces meet.
        seed: seed of the initial reflections; both pieces start equal.

    Raises:
        ConfigError: if the event is neither a vector nor an image, or for a radius that is not positive.

    Example:
        >>> import torch
        >>> from pushforward.transforms import PiecewiseOrthogonal
        >>> layer = PiecewiseOrthogonal(2)
        >>> x = torch.tensor([[0.1, 0.2], [3.0, 4.0]])
        >>> torch.allclose(layer.decode(layer.encode(x).z), x, atol=1e-6)
        True
    """

    valid_on_manifold = angle_preserving = True

    def __init__(self, features: int | Shape, radius: float = 1.0, seed: int = 0) -> None:
        super().__init__(features)
        if len(self.in_shape) not in (1, 3):
            raise ConfigError(
                f"features of PiecewiseOrthogonal must be a width or (channels, height, width); got {features!r}."
            )
        check_positive("radius", radius)
        self.features, self.radius, self.seed = features, radius, seed
        width = self.in_shape[0]
        self.outer = nn.Parameter(seeded_normal(width, width, seed=seed))
        self.inner = nn.Parameter(seeded_normal(width, width, seed=seed))

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """Q1 x or Q2 x."""
        return Step(self._multiply(x, inverse=False), self.zero_log_det(x))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Q1^T z or Q2^T z."""
        return self._multiply(z, inverse=True)

    def _multiply(self, x: Tensor, *, inverse: bool) -> Tensor:
        with full_precision(x):
            last = -len(self.in_shape)
            dtype = torch.promote_types(self.outer.dtype, x.dtype)
            rows = x.to(dtype).movedim(last, -1)
            # In float64, so that the rounding of the product does not change the choice of a row near the sphere.
            norm = torch.linalg.vector_norm(rows.detach().double(), dim=-1, keepdim=True)
            far = norm >= self.radius * math.sqrt(self.in_shape[0])
            pieces = []
            for vectors in (self.outer, self.inner):
                units, mixed = reflections_product(vectors.to(dtype))
                first, second = (units, mixed) if inverse else (mixed, units)
                pieces.append(rows - (rows @ first.mT) @ second)
            return torch.where(far, *pieces).movedim(-1, last)


@register("transforms")
class ConformalEmbedding(Embedding):
    """A sequence of conformal (angle-preserving) transforms, some of which drop coordinates: J^T J = lambda(z)^2 I.

    So 1/2 log det J^T J = d log lambda. The contribution is -d times the sum of the logarithms of the parts' scale factors,
    with d the latent dimension, for parts of any width (Ross and Cresswell 2021). It is computed while decoding z to g(z),
    because a part may have another scale factor at x than at g(z), to which the density belongs.

    Isometries (:class:`~pushforward.transforms.Householder`, ``Permutation``, ``Squeeze``, ``Flatten``, :class:`Pad`,
    :class:`OrthogonalEmbedding`, :class:`PiecewiseOrthogonal`), :class:`ConformalScale`, :class:`SpecialConformal` and
    :class:`Inversion` are conformal. Without piecewise transforms, every image of a plane is a sphere or a plane, for any
    number of parts (Liouville's theorem).

    Args:
        transforms: from data toward codes; each part's ``out_shape`` is the next part's ``in_shape``.

    Raises:
        ConfigError: if shapes do not fit, or a part is not conformal.

    Example:
        >>> import torch
        >>> from pushforward import distributions, transforms, models
        >>> sphere = transforms.ConformalEmbedding(transforms.SpecialConformal(3, spread=1.0), transforms.Pad(3, 2))
        >>> result = models.Flow(sphere, distributions.Normal(2)).evaluate(torch.tensor([[0.1, 0.2, 0.0]]))
        >>> str(result.measure), result.kind.value
        ('Manifold(2, 3)', 'exact')
    """

    def __init__(self, *transforms: Transform) -> None:
        flat: list[Transform] = []
        for item in transforms:
            flat += list(item) if isinstance(item, (Chain, ConformalEmbedding)) else [item]
        if not flat:
            raise ConfigError("ConformalEmbedding needs at least one transform; got none.")
        for item in flat:
            if not isinstance(item, Transform):
                raise ConfigError(f"ConformalEmbedding takes transforms; got {named(item)}.")
            if not item.angle_preserving or item.kind is not Kind.EXACT:
                raise ConfigError(
                    f"{type(item).__name__} does not preserve angles, so it cannot be part of a ConformalEmbedding: use Injective "
                    "for it."
                )
            if item.domain not in (None, REAL):
                raise ConfigError(
                    f"{type(item).__name__} is defined on {item.domain}, but parts of an embedding must be defined on all reals."
                )
        for before, after in itertools.pairwise(flat):
            if before.out_shape != after.in_shape:
                raise ConfigError(
                    f"{type(before).__name__} ends with shape {before.out_shape} and {type(after).__name__} starts "
                    f"with {after.in_shape}: each part must start with the shape that the part before it ends with."
                )
        super().__init__(flat[0].in_shape, flat[-1].out_shape)
        self.transforms = nn.ModuleList(flat)

    def __iter__(self) -> Iterator[Transform]:
        return iter(self.transforms)  # pyright: ignore[reportReturnType]

    def codes(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The codes after every part."""
        for part in self:
            x = part.encode(x).z
        return x

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Decode through every part, last first."""
        for part in reversed(list(self)):
            z = part.decode(z)
        return z

    def decode_with_volume(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """g(z), and d log lambda."""
        log_scale = z.new_zeros(z.shape[: z.dim() - len(self.out_shape)])
        for part in reversed(list(self)):
            z, contribution = part.decode_with_contribution(z)
            log_scale = log_scale - contribution / math.prod(part.in_shape)
        return z, self.dims[1] * log_scale

    def initialize(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Initialize each part with the output of the parts before it."""
        for part in self:
            x = part.initialize(x)
        return x
