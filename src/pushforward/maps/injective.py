"""Embeddings without a cheap volume: a bijection behind zero padding, and free networks."""

from __future__ import annotations

import math

from torch import Tensor

from pushforward.errors import ConfigError, KindError
from pushforward.maps.arguments import vector_width
from pushforward.maps.core import Map, Step, outside
from pushforward.maps.embedding import Embedding, check_latent, pad
from pushforward.maps.standardize import Standardize
from pushforward.maps.volume import jacobian, log_volume
from pushforward.measure import REAL, Relation
from pushforward.networks.mlp import MLP, check_hidden
from pushforward.numerics import Noise
from pushforward.registry import register

__all__ = ["FreeFormEmbedding", "Injective"]


class JacobianEmbedding(Embedding):
    """An embedding whose volume is found from the Jacobian: d forward-mode products, J^T J, and its Cholesky factor."""

    def decode_with_volume(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """g(z), and 1/2 log det J^T J at z; +inf where J has not full rank."""
        x, columns = self.jacobian(z, context)
        return x, log_volume(columns)

    def jacobian(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """g(z), and J = dg/dz, ``(*batch, D, d)``."""
        return jacobian(lambda t: self.decode(t, context), z)


@register("maps")
class Injective(JacobianEmbedding):
    """g(z) = f^-1(z, 0) for a bijection f of R^D: encode keeps the first d coordinates of f(x) (Brehmer and Cranmer 2020).

    The contribution is -1/2 log det J^T J of the D x d Jacobian at the code, exactly, by d forward-mode products, however f
    finds its own log-determinant: O(D d^2 + d^3) beside d passes. Off the surface encode is *a* projection, not the
    orthogonal one. Everything that scales the data belongs into f.

    Gradients of the volume differentiate f^-1 twice: an inverse of your own that iterates must have second derivatives, as
    those of the library do (:func:`~pushforward.numerics.monotone_root`).

    Args:
        map: f, a bijection onto the reals.
        latent: d, from 1 to D.

    Raises:
        KindError: if f is no bijection.
        ConfigError: if it does not reach all reals, or d does not fit.

    Example:
        >>> import torch
        >>> from pushforward import bases, maps, models
        >>> curve = maps.Injective(maps.Coupling(2, hidden=(8,)), latent=1)
        >>> str(models.Flow(curve, bases.Normal(1)).evaluate(torch.zeros(3, 2)).measure)
        'Manifold(1, 2)'
    """

    def __init__(self, map: Map, latent: int) -> None:
        if not isinstance(map, Map):
            raise ConfigError(f"Injective restricts a map to a surface; got {type(map).__name__}.")
        ambient = math.prod(map.in_shape)
        if map.relation is not Relation.EXACT or math.prod(map.out_shape) != ambient:
            raise KindError(f"{type(map).__name__} is not a bijection, so it cannot carry a surface.")
        if map.codomain not in (None, REAL):
            raise ConfigError(f"{type(map).__name__} lands in {map.codomain}, where a surface through 0 may not lie.")
        super().__init__(map.in_shape, check_latent(latent, ambient, "Injective"))
        self.map, self.latent = map, latent
        self.context, self.domain = map.context, map.domain
        self.encode_passes, self.decode_passes = map.encode_passes, map.decode_passes

    def codes(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The first d coordinates of f(x)."""
        return self.map.encode(x, context).z.flatten(x.dim() - len(self.in_shape))[..., : self.latent]

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """f^-1 of the codes with zeros behind."""
        wide = pad(z, self.dims[0])
        return self.map.decode(wide.reshape(*z.shape[:-1], *self.map.out_shape), context)

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """Data to codes; -inf outside f's domain."""
        step = super().encode(x, context)
        return step._replace(contribution=step.contribution + outside(x, self.domain, len(self.in_shape)))

    def initialize(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Initialize f, and return the codes."""
        self.map.initialize(x, context)
        return self.codes(x, context)

    @property
    def statistics(self) -> bool:
        """Whether f has statistics to refresh."""
        return self.map.statistics

    def refresh(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Refresh f, and return the codes."""
        self.map.refresh(x, context)
        return self.codes(x, context)


@register("maps")
class FreeFormEmbedding(JacobianEmbedding):
    """g and its left inverse as two free networks, an autoencoder (Sorrenson et al. 2024, arXiv 2306.01843).

    Nothing ties the two together but training, and g may fold (two codes, one point), where the number counts one code of
    several: the relation is ESTIMATE. The data are standardised first, and the scale is part of the volume.

    Args:
        features: D.
        latent: d, from 1 to D.
        hidden: widths of the hidden layers of the encoder; the decoder has them in reverse.
        activation: of the networks; a smooth one, since the volume is differentiated.

    Raises:
        ConfigError: for impossible widths.

    Example:
        >>> import torch
        >>> FreeFormEmbedding(5, 2, hidden=(16,)).encode(torch.zeros(3, 5)).residual.shape
        torch.Size([3])
    """

    relation = Relation.ESTIMATE

    def __init__(
        self, features: int, latent: int, *, hidden: tuple[int, ...] = (64, 64), activation: str = "silu"
    ) -> None:
        width = vector_width(features, "FreeFormEmbedding")
        super().__init__(width, check_latent(latent, width, "FreeFormEmbedding"))
        self.features, self.latent, self.activation = features, latent, activation
        self.hidden = check_hidden(hidden, False)
        self.scaler = Standardize(width)
        self.encoder = MLP(width, latent, self.hidden, activation=activation)
        self.decoder = MLP(latent, width, self.hidden[::-1], activation=activation)

    def codes(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The encoder's output."""
        return self.encoder(self.scaler.encode(x).z).to(x.dtype)

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """The decoder's output, in the data's units."""
        return self.scaler.decode(self.decoder(z).to(z.dtype))

    def initialize(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Set the standardisation, and return the codes."""
        self.scaler.initialize(x)
        return self.codes(x)
