"""`Embedding`, the interface of embeddings of R^d in R^D, and those that keep lengths: padding and orthonormal columns."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from pushforward.errors import ConfigError, KindError
from pushforward.likelihood import Manifold, Measure
from pushforward.numerics import Noise, full_precision, sum_event
from pushforward.numerics.checks import check_integer
from pushforward.registry import register
from pushforward.transforms.base import Shape, Step, Transform
from pushforward.transforms.linear.factored import reflections_product
from pushforward.transforms.validation import seeded_normal, vector_width

__all__ = ["Embedding", "OrthogonalEmbedding", "Pad", "squared_distance"]


class Embedding(Transform):
    """An injective map g of R^d into R^D with a left inverse g+.

    encode(x) is z = g+(x), with contribution -1/2 log det J^T J, J = dg/dz at z, and residual norm(x - g(z))^2. With a
    latent density on R^d the result is the log-density on the manifold g(R^d) at the point g(z), with respect to its
    d-dimensional area: on Manifold(d, D), or on Lebesgue(D) if d = D.

    A subclass defines :meth:`codes`, ``decode`` and :meth:`decode_with_volume`.

    Example:
        >>> import torch, pushforward as pf
        >>> plane = pf.transforms.Pad(3, 2)
        >>> step = plane.encode(torch.tensor([[1.0, 2.0, 3.0]]))
        >>> step.z, step.residual  # the squared distance to the plane
        (tensor([[1., 2.]]), tensor([9.]))
    """

    @property
    def dims(self) -> tuple[int, int]:
        """D and d."""
        return math.prod(self.in_shape), math.prod(self.out_shape)

    @abstractmethod
    def codes(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """z = g+(x), ``(*batch, *out_shape)``: the coordinates of a point on the manifold, or of a nearby one for any other x."""

    @abstractmethod
    def decode_with_volume(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """g(z), and 1/2 log det J^T J at z, shape ``batch``."""

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """Data to codes, with -1/2 log det J^T J at the decoded point and the squared distance to it."""
        z = self.codes(x, context)
        decoded, volume = self.decode_with_volume(z, context)
        residual = squared_distance(x, decoded, len(self.in_shape)) if self.dims[0] != self.dims[1] else None
        return Step(z, -volume, residual)

    def decode_with_contribution(
        self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None
    ) -> tuple[Tensor, Tensor]:
        """Codes to data, with the contribution of ``encode``."""
        x, volume = self.decode_with_volume(z, context)
        return x, -volume

    def measure(self, latent: Measure) -> Measure:
        """Manifold(d, D) of Lebesgue(d). An isometry also maps Manifold(k, d) to Manifold(k, D).

        Raises:
            KindError: for any other measure, as a counting measure or the area of a manifold that would be stretched.
        """
        ambient, dim = self.dims
        if latent.name == "Lebesgue":
            return latent if ambient == dim else Manifold(latent.dim, ambient)
        if latent.name == "Manifold" and self.valid_on_manifold:
            return latent if ambient == dim else Manifold(latent.dim, ambient)
        raise KindError(
            f"{type(self).__name__} needs a latent density on R^{dim}, from which it makes one on a manifold in R^{ambient}; the "
            f"rest of the chain is on {latent}."
        )


def squared_distance(x: Tensor, y: Tensor, dims: int) -> Tensor:
    """Sum of squared differences over the last ``dims`` dimensions; infinite where it overflows, never NaN."""
    return sum_event((x - y).square(), dims)


def check_latent(latent: int, most: int, owner: str) -> int:
    """Return the number of latent coordinates if it is valid.

    Raises:
        ConfigError: if it is not an integer in 1, ..., ``most``.
    """
    return check_integer(f"latent of {owner}", latent, most=most)


@register("transforms")
class Pad(Embedding):
    """g(z) = (z, 0): zeros are appended. It keeps lengths; ``encode`` drops the coordinates after the first d.

    Args:
        features: dimension D of the data.
        latent: number d of latent coordinates, from 1 to D.

    Raises:
        ConfigError: if the event is not a vector, or d does not fit.

    Example:
        >>> import torch
        >>> from pushforward.transforms import Pad
        >>> step = Pad(3, latent=2).encode(torch.tensor([[1.0, 2.0, 3.0]]))
        >>> step.z, step.residual
        (tensor([[1., 2.]]), tensor([9.]))
    """

    valid_on_manifold = angle_preserving = True

    def __init__(self, features: int, latent: int) -> None:
        width = vector_width(features, "Pad")
        super().__init__(width, check_latent(latent, width, "Pad"))
        self.features, self.latent = features, latent

    def codes(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The first d coordinates."""
        return x[..., : self.latent]

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """The codes, then zeros."""
        return pad(z, self.in_shape[0])

    def decode_with_volume(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The codes, then zeros; and the log-volume 0."""
        return self.decode(z), z.new_zeros(z.shape[:-1])


def pad(z: Tensor, width: int) -> Tensor:
    """z with zeros appended up to this width."""
    return torch.cat((z, z.new_zeros(*z.shape[:-1], width - z.shape[-1])), -1)


@register("transforms")
class OrthogonalEmbedding(Embedding):
    """g(z) = R z, where R is learned and has orthonormal columns; ``encode`` is R^T x, the orthogonal projection.

    It keeps lengths. For images, R mixes the channels of every pixel: a 1 x 1 convolution with d output channels (Ross and
    Cresswell 2021, arXiv 2106.05275). R^T is the first d rows of a product of d Householder reflections, which can represent
    every such matrix. With d = D it is an orthogonal bijection with contribution 0.

    Args:
        features: dimension D of the data, or (channels, height, width).
        latent: number d of latent coordinates, or of latent channels; None for all.
        seed: seed of the initial reflections.

    Raises:
        ConfigError: if the event is neither a vector nor an image, or d does not fit.

    Example:
        >>> import torch
        >>> from pushforward.transforms import OrthogonalEmbedding
        >>> plane = OrthogonalEmbedding(3, latent=2)
        >>> x = plane.decode(torch.tensor([[1.0, 2.0]]))
        >>> torch.allclose(plane.encode(x).z, torch.tensor([[1.0, 2.0]]), atol=1e-6)
        True
    """

    valid_on_manifold = angle_preserving = True

    def __init__(self, features: int | Shape, latent: int | None = None, seed: int = 0) -> None:
        super().__init__(features)
        if len(self.in_shape) not in (1, 3):
            raise ConfigError(
                f"features of OrthogonalEmbedding must be a width or (channels, height, width); got {features!r}."
            )
        channels = self.in_shape[0]
        kept = channels if latent is None else check_latent(latent, channels, "OrthogonalEmbedding")
        self.out_shape = (kept, *self.in_shape[1:])
        self.features, self.latent, self.seed = features, latent, seed
        self.vectors = nn.Parameter(seeded_normal(kept, channels, seed=seed))

    def codes(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """R^T x."""
        return self._rows(x, lambda rows, units, mixed: (rows - (rows @ mixed.mT) @ units)[..., : self.out_shape[0]])

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """R z."""

        def multiply(rows: Tensor, units: Tensor, mixed: Tensor) -> Tensor:
            padded = pad(rows, self.in_shape[0])
            return padded - (padded @ units.mT) @ mixed

        return self._rows(z, multiply)

    def decode_with_volume(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """R z, and the log-volume 0."""
        return self.decode(z), z.new_zeros(z.shape[: z.dim() - len(self.out_shape)])

    def _rows(self, x: Tensor, function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
        """A function of vectors and reflections, applied to vectors or to the channels of every pixel."""
        with full_precision(x):
            vectors = self.vectors.to(torch.promote_types(self.vectors.dtype, x.dtype))
            last = -len(self.in_shape)
            rows = x.to(vectors.dtype).movedim(last, -1)
            return function(rows, *reflections_product(vectors)).movedim(-1, last)
