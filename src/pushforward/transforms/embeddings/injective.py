"""Embeddings whose volume comes from the Jacobian: a bijection of zero-padded codes, and unconstrained networks."""

from __future__ import annotations

import math

from torch import Tensor

from pushforward.errors import ConfigError, KindError
from pushforward.likelihood import REAL, Kind
from pushforward.networks.mlp import MLP
from pushforward.numerics import Noise, batch_jacobian
from pushforward.numerics.checks import check_widths
from pushforward.registry import register
from pushforward.transforms.base import Step, Transform, named, outside
from pushforward.transforms.elementwise.normalization import Standardize
from pushforward.transforms.embeddings.embedding import Embedding, check_latent, pad
from pushforward.transforms.embeddings.jacobian import log_volume
from pushforward.transforms.validation import vector_width

__all__ = ["FreeFormEmbedding", "Injective"]


class JacobianEmbedding(Embedding):
    """An embedding whose volume is computed from the Jacobian: d forward-mode products, J^T J, and its Cholesky factor."""

    def decode_with_volume(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """g(z), and 1/2 log det J^T J at z; +inf where J does not have full rank."""
        x, columns = self.jacobian(z, context)
        return x, log_volume(columns)

    def jacobian(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """g(z), and J = dg/dz, ``(*batch, D, d)``."""
        return batch_jacobian(lambda t: self.decode(t, context), z)


@register("transforms")
class Injective(JacobianEmbedding):
    """g(z) = f^-1(z, 0) for a bijection f of R^D; ``encode`` keeps the first d coordinates of f(x) (Brehmer and Cranmer 2020).

    The contribution is -1/2 log det J^T J of the D x d Jacobian at the code. It is exact, by d forward-mode products, and does
    not use the log-determinant of f: O(D d^2 + d^3) and d passes. For x off the manifold ``encode`` is *a* projection, not
    the orthogonal one. Transforms that scale the data must be part of f.

    Gradients of the volume differentiate f^-1 twice. If you write an iterative inverse, it must have second derivatives, as
    those of this library do (:func:`~pushforward.numerics.monotone_root`).

    Args:
        transform: the bijection f, whose image must be all reals.
        latent: number d of latent coordinates, from 1 to D.

    Raises:
        KindError: if f is not a bijection.
        ConfigError: if its image is not all reals, or d does not fit.

    Example:
        >>> import torch
        >>> from pushforward import distributions, transforms, models
        >>> curve = transforms.Injective(transforms.Coupling(2, hidden=(8,)), latent=1)
        >>> str(models.Flow(curve, distributions.Normal(1)).evaluate(torch.zeros(3, 2)).measure)
        'Manifold(1, 2)'
    """

    def __init__(self, transform: Transform, latent: int) -> None:
        if not isinstance(transform, Transform):
            raise ConfigError(f"transform must be a Transform; got {named(transform)}.")
        ambient = math.prod(transform.in_shape)
        if not transform.bijective:
            raise KindError(f"{type(transform).__name__} is not a bijection, so Injective cannot use it.")
        if transform.codomain not in (None, REAL):
            raise ConfigError(
                f"the image of transform must be all reals, because Injective inverts zero-padded codes; {type(transform).__name__} "
                f"has the image {transform.codomain}."
            )
        super().__init__(transform.in_shape, check_latent(latent, ambient, "Injective"))
        self.transform, self.latent = transform, latent
        self.context, self.domain = transform.context, transform.domain
        self.encode_passes, self.decode_passes = transform.encode_passes, transform.decode_passes

    def codes(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The first d coordinates of f(x)."""
        return self.transform.encode(x, context).z.flatten(x.dim() - len(self.in_shape))[..., : self.latent]

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """f^-1 of the zero-padded codes."""
        padded = pad(z, self.dims[0])
        return self.transform.decode(padded.reshape(*z.shape[:-1], *self.transform.out_shape), context)

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """Data to codes; -inf outside f's domain."""
        step = super().encode(x, context)
        return step._replace(contribution=step.contribution + outside(x, self.domain, len(self.in_shape)))

    def initialize(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Initialize f, and return the codes."""
        self.transform.initialize(x, context)
        return self.codes(x, context)

    @property
    def needs_refresh(self) -> bool:
        """Whether f has statistics to refresh."""
        return self.transform.needs_refresh

    def refresh(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Refresh f, and return the codes."""
        self.transform.refresh(x, context)
        return self.codes(x, context)


@register("transforms")
class FreeFormEmbedding(JacobianEmbedding):
    """g and its left inverse as two unconstrained networks, an autoencoder (Sorrenson et al. 2024, arXiv 2306.01843).

    Only training makes them inverse to each other, and g may not be injective: where several codes have the same point, the
    result accounts for one of them. So the kind is ESTIMATE. The data are standardized first, and the scale is part of the
    volume.

    Args:
        features: dimension D of the data.
        latent: number d of latent coordinates, from 1 to D.
        hidden: widths of the hidden layers of the encoder; the decoder has them in reverse order.
        activation: name of the activation function; it should be smooth, as the volume is differentiated.

    Raises:
        ConfigError: for impossible widths.

    Example:
        >>> import torch
        >>> FreeFormEmbedding(5, 2, hidden=(16,)).encode(torch.zeros(3, 5)).residual.shape
        torch.Size([3])
    """

    kind = Kind.ESTIMATE

    def __init__(
        self, features: int, latent: int, *, hidden: tuple[int, ...] = (64, 64), activation: str = "silu"
    ) -> None:
        width = vector_width(features, "FreeFormEmbedding")
        super().__init__(width, check_latent(latent, width, "FreeFormEmbedding"))
        self.features, self.latent, self.activation = features, latent, activation
        self.hidden = check_widths("hidden", hidden)
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
        """Set the standardization, and return the codes."""
        self.scaler.initialize(x)
        return self.codes(x)
