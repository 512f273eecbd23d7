"""Conformal transforms, which stretch all directions at a point alike, and embeddings made of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pushforward.errors import ConfigError
from pushforward.likelihood import REAL, Kind
from pushforward.numerics import Noise, full_precision
from pushforward.numerics.checks import check_positive
from pushforward.registry import register
from pushforward.transforms.base import Shape, Step, Transform
from pushforward.transforms.chain import Chain
from pushforward.transforms.elementwise.normalization import moments
from pushforward.transforms.embeddings.embedding import Embedding
from pushforward.transforms.linear.factored import reflections_product
from pushforward.transforms.validation import seeded_normal, vector_width

__all__ = ["ConformalEmbedding", "ConformalScale", "Inversion", "PiecewiseOrthogonal", "SpecialConformal"]


@register("transforms")
class ConformalScale(Transform):
    """z = (x - shift) exp(log_scale) with one number for all coordinates; contribution D log_scale.

    :meth:`initialize` takes the means of the training rows (of each channel, for images) and the root mean square of their
    deviations: what a standardization is that keeps angles (Ross and Cresswell 2021). Both are then trained. Data
    without any spread keep scale 1.

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
        self.statistic: Shape = (self.in_shape[0], 1, 1) if len(self.in_shape) == 3 else self.in_shape
        self.shift = nn.Parameter(torch.zeros(self.statistic))
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.register_buffer("initialized", torch.tensor(False))

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """(x - shift) exp(log_scale)."""
        contribution = (math.prod(self.in_shape) * self.log_scale).expand(self.batch_shape(x))
        return Step((x - self.shift) * self.log_scale.exp(), contribution)

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Z exp(-log_scale) + shift."""
        return z / self.log_scale.exp() + self.shift  # by the factor of encode, with its rounding

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Set shift and scale from the rows of x, unless they are set; return z.

        Raises:
            InputError: if there is no row.
        """
        if not self.initialized:
            mean, spread = moments(x, self.in_shape, self.statistic)
            size = spread.square().mean().sqrt()
            self.shift.copy_(mean)
            self.log_scale.copy_(torch.where(size > 0, -size.log(), 0.0))
            self.initialized.fill_(True)
        return self.encode(x).z


_NEAREST = 1e-30
"""Distance from which the pole itself is seen, in the transform's own units; rounding of any other point is larger."""


class Moebius(Transform):
    """A conformal transform with one pole, computed in float64: the pole itself goes to a point 1e30 away, never to NaN."""

    angle_preserving = True

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """Data to noise."""
        return Step(*self._move(x, inverse=False))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Noise to data."""
        return self._move(z, inverse=True)[0]

    def decode_with_contribution(
        self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None
    ) -> tuple[Tensor, Tensor]:
        """Noise to data, with the contribution of ``encode``: minus that of the way back."""
        x, contribution = self._move(z, inverse=True)
        return x, -contribution

    def _move(self, x: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


@register("transforms")
class Inversion(Moebius):
    """z = c + (x - c) / norm(x - c)^2: inside and outside of the unit sphere around c change places. It is its own inverse.

    Contribution -2 D log norm(x - c). The pole c is infinitely far in z.

    Args:
        features: D.
        center: c at the start, a number for all coordinates; it is learned.

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
        if not math.isfinite(center):
            raise ConfigError(f"center must be finite; got {center!r}.")
        self.features, self.center = features, center
        self.pole = nn.Parameter(torch.full((width,), float(center)))

    def _move(self, x: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        pole = self.pole.double()
        away = x.double() - pole
        away = torch.where((away == 0).all(-1, keepdim=True), _NEAREST, away)  # the pole itself
        square = away.square().sum(-1, keepdim=True)
        z = pole + away / square
        return z.to(x.dtype), (-self.in_shape[0] * square.log().squeeze(-1)).to(x.dtype)


@register("transforms")
class SpecialConformal(Moebius):
    """z = (x + b norm(x)^2) / q with q = 1 + 2 b.x + norm(b)^2 norm(x)^2: an inversion, a shift by b, and an inversion.

    Contribution -D log q, with lambda = 1 / q. The inverse is the same with -b (Ross and Cresswell 2021, arXiv 2106.05275). A plane through 0 becomes a sphere through 0 of radius 1 / (2 norm(b_perp)), with b_perp
    the part of b across the plane. q is 0 at the pole -b / norm(b)^2 alone. The start is the identity, b = 0, or random.

    Args:
        features: D.
        spread: of the starting b.
        seed: of the starting b.

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

    def _move(self, x: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        b, y = self.shift.double(), x.double()
        b = -b if inverse else b
        bend, along = b.square().sum(), (y * b).sum(-1, keepdim=True)
        # By the parts of y along and across b nothing cancels near the pole; a b too short for a direction needs none.
        short = bend < 1e-16
        share = torch.where(short, 0.0, along / torch.where(short, 1.0, bend))
        across = y - b * share
        square = across.square().sum(-1, keepdim=True)
        lift = 1 + along
        lift = torch.where((lift == 0) & (square == 0), _NEAREST, lift)  # the pole itself
        q = torch.where(short, 1 + 2 * along, lift.square()) + bend * square
        z = (across + b * (share * lift + square)) / q
        return z.to(x.dtype), (-self.in_shape[0] * q.log().squeeze(-1)).to(x.dtype)


@register("transforms")
class PiecewiseOrthogonal(Transform):
    """z = Q1 x where norm(x) >= radius sqrt(D), else Q2 x, both orthogonal; contribution 0 (Ross and Cresswell 2021,
    arXiv 2106.05275).

    Both keep the norm that chooses between them, so the inverse knows which it was. It tears space along that sphere, a set
    of measure zero, and within a piece keeps lengths and angles. Of images, each pixel's channels are turned by the norm of
    those channels: two pieces for each pixel.

    Args:
        features: D, or (channels, height, width); D is then the number of channels.
        radius: where the pieces meet, in root mean square of the coordinates.
        seed: of the starting reflections; both pieces start as the same transform.

    Raises:
        ConfigError: for another event, or a radius that is not positive.

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
                f"PiecewiseOrthogonal acts on vectors and on the channels of images (C, H, W); got {features!r}."
            )
        check_positive("radius", radius)
        self.features, self.radius, self.seed = features, radius, seed
        width = self.in_shape[0]
        self.outer = nn.Parameter(seeded_normal(width, width, seed=seed))
        self.inner = nn.Parameter(seeded_normal(width, width, seed=seed))

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """Q1 x or Q2 x."""
        return Step(self._turn(x, back=False), self.zero_log_det(x))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Q1^T z or Q2^T z."""
        return self._turn(z, back=True)

    def _turn(self, x: Tensor, *, back: bool) -> Tensor:
        with full_precision(x):
            last = -len(self.in_shape)
            kind = torch.promote_types(self.outer.dtype, x.dtype)
            rows = x.to(kind).movedim(last, -1)
            # In float64: the rounding of a turn must not decide a norm that lies at the border.
            norm = torch.linalg.vector_norm(rows.detach().double(), dim=-1, keepdim=True)
            far = norm >= self.radius * math.sqrt(self.in_shape[0])
            pieces = []
            for vectors in (self.outer, self.inner):
                units, mixed = reflections_product(vectors.to(kind))
                first, second = (units, mixed) if back else (mixed, units)
                pieces.append(rows - (rows @ first.mT) @ second)
            return torch.where(far, *pieces).movedim(-1, last)


@register("transforms")
class ConformalEmbedding(Embedding):
    """Conformal transforms one after the other, of which some drop coordinates: J^T J = lambda(z)^2 I, so 1/2 log det J^T J = d log lambda.

    The contribution is -d times the sum of the parts' log stretch, with d the dimension that is left at the end, however wide
    a part is (Ross and Cresswell 2021). It is found on the way from z to g(z): off the surface a part may stretch
    otherwise than at the point that the density belongs to.

    Isometries (:class:`~pushforward.transforms.Householder`, ``Permutation``, ``Squeeze``, ``Flatten``, :class:`Pad`,
    :class:`OrthogonalEmbedding`, :class:`PiecewiseOrthogonal`), :class:`ConformalScale`, :class:`SpecialConformal` and
    :class:`Inversion` are conformal. Without the piecewise ones every image is a round sphere or a plane, however many parts
    there are (Liouville's theorem).

    Args:
        transforms: from data toward codes; each part's ``out_shape`` is the next part's ``in_shape``.

    Raises:
        ConfigError: if shapes do not meet, or a part is not conformal.

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
            raise ConfigError("a conformal embedding needs at least one transform.")
        for item in flat:
            if not isinstance(item, Transform) or not item.angle_preserving or item.kind is not Kind.EXACT:
                raise ConfigError(
                    f"{type(item).__name__} does not stretch all directions alike, so it cannot be part of a conformal "
                    "embedding: use Injective for it."
                )
            if item.domain not in (None, REAL):
                raise ConfigError(f"{type(item).__name__} reads a part of the reals only, which an embedding leaves.")
        for before, after in itertools.pairwise(flat):
            if before.out_shape != after.in_shape:
                raise ConfigError(
                    f"{type(before).__name__} ends with shape {before.out_shape} and {type(after).__name__} starts "
                    f"with {after.in_shape}: the parts of an embedding must meet."
                )
        super().__init__(flat[0].in_shape, flat[-1].out_shape)
        self.transforms = nn.ModuleList(flat)

    def __iter__(self) -> Iterator[Transform]:
        return iter(self.transforms)  # pyright: ignore[reportReturnType]

    def codes(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Through every part."""
        for part in self:
            x = part.encode(x).z
        return x

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Back through every part, last first."""
        for part in reversed(list(self)):
            z = part.decode(z)
        return z

    def decode_with_volume(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """g(z), and d log lambda."""
        stretch = z.new_zeros(z.shape[: z.dim() - len(self.out_shape)])
        for part in reversed(list(self)):
            z, contribution = part.decode_with_contribution(z)
            stretch = stretch - contribution / math.prod(part.in_shape)
        return z, self.dims[1] * stretch

    def initialize(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Initialize each part on what the parts before it make of x."""
        for part in self:
            x = part.initialize(x)
        return x
