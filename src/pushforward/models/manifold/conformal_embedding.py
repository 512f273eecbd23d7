"""Conformal embedding flows (Ross and Cresswell 2021, arXiv 2106.05275)."""

from __future__ import annotations

from pushforward.distributions import Distribution
from pushforward.errors import ConfigError
from pushforward.models.manifold.base import ManifoldModel, latent_flow
from pushforward.numerics.checks import check_integer, check_widths
from pushforward.registry import register
from pushforward.transforms import (
    ConformalEmbedding,
    ConformalScale,
    Embedding,
    OrthogonalEmbedding,
    Pad,
    SpecialConformal,
    Transform,
    Transformer,
)
from pushforward.transforms.base import Shape, as_shape

__all__ = ["ConformalEmbeddingFlow"]


@register("models")
class ConformalEmbeddingFlow(ManifoldModel):
    """A flow of d codes and an embedding that preserves angles, on a d-dimensional manifold in R^D.

    log p(x) = log p_flow(z) - d log lambda(z).

    The volume costs nothing, so manifold and density are trained together: -mean log p + reconstruction_weight * mean
    residual. The default embedding of vectors is the most general one that is not piecewise, onto a sphere or a plane:
    scale and shift, orthonormal columns to R^(d + 1), a special conformal transform, zero padding. ``evaluate`` is
    EXACT on Manifold(d, D), in the units of the data.

    Args:
        features: D, or a shape with an ``embedding`` of that shape.
        latent: d.
        embedding: a :class:`~pushforward.transforms.ConformalEmbedding` from the data to vectors of d codes; None for
            the default.
        flow: any transform from d codes to the base; None for an actnorm and couplings.
        base: distribution of d coordinates; None for a standard normal.
        layers: number of couplings of the default flow.
        hidden: widths of the hidden layers of the couplings.
        transformer: transformer of the couplings; None for the affine one.
        reconstruction_weight: weight of the residual in the loss. With a small weight the manifold shrinks, which
            raises the likelihood.
        phase: what training minimizes, "joint" (J-CEF), or "manifold" and then "density" (S-CEF).
        seed: seed of the initial default embedding.

    Raises:
        ConfigError: for sizes that are not possible, or parts that do not fit together.

    Example:
        >>> import torch
        >>> model = ConformalEmbeddingFlow(3, latent=2, hidden=(16,))
        >>> result = model.evaluate(torch.randn(4, 3))
        >>> result, result.residual.shape                              # doctest: +ELLIPSIS
        (LogLik(an exact value on Manifold(2, 3), shape (4,), mean ... nats), torch.Size([4]))
    """

    def __init__(
        self,
        features: int | Shape,
        latent: int,
        *,
        embedding: Embedding | None = None,
        flow: Transform | None = None,
        base: Distribution | None = None,
        layers: int = 6,
        hidden: tuple[int, ...] = (64, 64),
        transformer: Transformer | None = None,
        reconstruction_weight: float = 1000.0,
        phase: str = "joint",
        seed: int = 0,
    ) -> None:
        shape = as_shape(features)
        check_integer("latent", latent)
        check_integer("layers", layers, 0)
        check_integer("seed", seed, None)
        hidden = check_widths("hidden", hidden)
        if embedding is not None and not isinstance(embedding, Embedding):
            raise ConfigError(
                f"ConformalEmbeddingFlow needs an embedding, such as transforms.ConformalEmbedding; got {embedding!r:.80}."
            )
        chosen = _sphere_embedding(shape, latent, seed) if embedding is None else embedding
        if chosen.in_shape != shape or chosen.out_shape != (latent,):
            raise ConfigError(
                f"the embedding must have the shapes {shape} and {(latent,)}; got {chosen.in_shape} and "
                f"{chosen.out_shape}."
            )
        codes = latent_flow(latent, layers, hidden, transformer) if flow is None else flow
        super().__init__(chosen, codes, base, phase, reconstruction_weight)
        self.features, self.latent, self.layers, self.hidden = features, latent, layers, hidden
        self.transformer, self.seed = transformer, seed


def _sphere_embedding(shape: Shape, latent: int, seed: int) -> Embedding:
    """The default embedding of vectors, onto a sphere or a plane."""
    if len(shape) != 1:
        raise ConfigError(
            f"data of shape {shape} have no default embedding: pass embedding=transforms.ConformalEmbedding(...)."
        )
    if latent > shape[0]:
        raise ConfigError(f"latent must be at most the number of features, {shape[0]}; got {latent}.")
    between = min(latent + 1, shape[0])
    parts = [ConformalScale(shape), OrthogonalEmbedding(shape, between, seed), SpecialConformal(between, 0.1, seed)]
    return ConformalEmbedding(*parts, Pad(between, latent))
