"""Embeddings of R^d in R^D: what they share, and those that keep lengths (padding, orthonormal columns)."""

from __future__ import annotations

import math
from abc import abstractmethod

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
    """An injective transform g of R^d into R^D, and a way back g+ that is its left inverse.

    encode(x) is z = g+(x), with contribution -1/2 log det J^T J, J = dg/dz at z, and residual norm(x - g(z))^2. With a
    density on R^d behind it the log-likelihood is that of the surface g(R^d) at the point g(z), with respect to its
    d-dimensional area: Manifold(d, D), or Lebesgue(D) where d = D.

    A subclass writes :meth:`codes`, ``decode`` and :meth:`decode_with_volume`.
    """

    @property
    def dims(self) -> tuple[int, int]:
        """D and d."""
        return math.prod(self.in_shape), math.prod(self.out_shape)

    @abstractmethod
    def codes(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """z = g+(x), ``(*batch, *out_shape)``: for points on the surface their coordinates, for others those of a near one."""

    @abstractmethod
    def decode_with_volume(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """g(z), and 1/2 log det J^T J at z, shape ``batch``."""

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """Data to codes, with -1/2 log det J^T J at the decoded point and the squared distance to it."""
        z = self.codes(x, context)
        back, volume = self.decode_with_volume(z, context)
        residual = squared_distance(x, back, len(self.in_shape)) if self.dims[0] != self.dims[1] else None
        return Step(z, -volume, residual)

    def decode_with_contribution(
        self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None
    ) -> tuple[Tensor, Tensor]:
        """Codes to data, with the contribution of ``encode``."""
        x, volume = self.decode_with_volume(z, context)
        return x, -volume

    def measure(self, latent: Measure) -> Measure:
        """Manifold(d, D) of Lebesgue(d); an isometry also carries a surface in R^d along.

        Raises:
            KindError: for another measure, as that of pixels or of a surface that would be stretched.
        """
        ambient, dim = self.dims
        if latent.name == "Lebesgue":
            return latent if ambient == dim else Manifold(latent.dim, ambient)
        if latent.name == "Manifold" and self.valid_on_manifold:
            return latent if ambient == dim else Manifold(latent.dim, ambient)
        raise KindError(
            f"{type(self).__name__} makes a density on a surface in R^{ambient} of one on R^{dim}; behind it lives a density "
            f"on {latent}."
        )


def squared_distance(x: Tensor, y: Tensor, dims: int) -> Tensor:
    """Sum of squared differences over the last ``dims`` dimensions; infinite where it overflows, never NaN."""
    return sum_event((x - y).square(), dims)


def check_latent(latent: int, most: int, owner: str) -> int:
    """A number of latent coordinates.

    Raises:
        ConfigError: if it is no integer in 1, ..., ``most``.
    """
    return check_integer(f"latent of {owner}", latent, most=most)


@register("transforms")
class Pad(Embedding):
    """g(z) = (z, 0): the first d coordinates of R^D. It keeps lengths; encode drops the other coordinates.

    Args:
        features: D.
        latent: d, from 1 to D.

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
        """Codes with zeros behind."""
        return pad(z, self.in_shape[0])

    def decode_with_volume(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Codes with zeros behind, and 0."""
        return self.decode(z), z.new_zeros(z.shape[:-1])


def pad(z: Tensor, width: int) -> Tensor:
    """z with zeros behind, up to this width."""
    return torch.cat((z, z.new_zeros(*z.shape[:-1], width - z.shape[-1])), -1)


@register("transforms")
class OrthogonalEmbedding(Embedding):
    """g(z) = R z with orthonormal columns R, learned; encode is R^T x, the orthogonal projection. It keeps lengths.

    Of images, R mixes the channels of every pixel: a 1 x 1 convolution with c output channels (Ross and Cresswell
    2021, arXiv 2106.05275). R^T is the first d rows of a product of d Householder reflections, which reaches every such frame. With d = D it
    is a bijection, orthogonal, with contribution 0.

    Args:
        features: D, or (channels, height, width).
        latent: d, or the channels that are left; None for all.
        seed: of the starting reflections.

    Raises:
        ConfigError: for another event, or if d does not fit.

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
                f"OrthogonalEmbedding acts on vectors and on the channels of images (C, H, W); got {features!r}."
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

        def back(rows: Tensor, units: Tensor, mixed: Tensor) -> Tensor:
            wide = pad(rows, self.in_shape[0])
            return wide - (wide @ units.mT) @ mixed

        return self._rows(z, back)

    def decode_with_volume(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """R z, and 0."""
        return self.decode(z), z.new_zeros(z.shape[: z.dim() - len(self.out_shape)])

    def _rows(self, x: Tensor, move) -> Tensor:
        """A function of vectors, applied to vectors or to the channels of every pixel."""
        with full_precision(x):
            vectors = self.vectors.to(torch.promote_types(self.vectors.dtype, x.dtype))
            last = -len(self.in_shape)
            return move(x.to(vectors.dtype).movedim(last, -1), *reflections_product(vectors)).movedim(-1, last)
