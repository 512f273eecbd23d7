"""Conformal embedding flows (Ross and Cresswell 2021, arXiv 2106.05275)."""

from __future__ import annotations

from pushforward.distributions import Distribution
from pushforward.errors import ConfigError
from pushforward.models.manifold.surface import SurfaceModel, latent_flow
from pushforward.numerics.checks import check_integer
from pushforward.registry import register
from pushforward.transforms import (
    ConformalEmbedding,
    ConformalScale,
    Embedding,
    OrthogonalEmbedding,
    Pad,
    SpecialConformal,
    Transform,
)
from pushforward.transforms import Transformer as Law
from pushforward.transforms.base import Shape, as_shape

__all__ = ["ConformalEmbeddingFlow"]


@register("models")
class ConformalEmbeddingFlow(SurfaceModel):
    """A flow of d codes behind an embedding that keeps angles: log p(x) = log p_flow(z) - d log lambda(z), on a d-surface in R^D.

    The volume costs nothing, so surface and density are trained together: -mean log p + reconstruction * mean residual. The
    default embedding of vectors is the most general one without pieces, onto a sphere or a plane: scale and shift, orthonormal
    columns to R^(d + 1), a special conformal transform, zero padding. ``evaluate`` is EXACT on Manifold(d, D), in the data's units.

    Args:
        features: D, or a shape with an ``embedding`` of that shape.
        latent: d.
        embedding: a :class:`~pushforward.transforms.ConformalEmbedding` from the data to vectors of d codes; None for the default.
        flow: any transform from d codes to the base; None for an actnorm and couplings.
        base: of d coordinates; None for a standard normal.
        couplings: of the default flow.
        hidden: widths of their hidden layers.
        transformer: their law; None for the affine one.
        reconstruction: weight of the residual beside the negative log-likelihood. A small one lets the surface shrink, which
            raises the likelihood.
        phase: what training minimizes, "joint" (J-CEF), or "manifold" and then "density" (S-CEF).
        seed: of the default embedding's start.

    Raises:
        ConfigError: for impossible sizes, or parts that do not meet.

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
        couplings: int = 6,
        hidden: tuple[int, ...] = (64, 64),
        transformer: Law | None = None,
        reconstruction: float = 1000.0,
        phase: str = "joint",
        seed: int = 0,
    ) -> None:
        shape = as_shape(features)
        check_integer("latent", latent)
        surface = _moebius(shape, latent, seed) if embedding is None else embedding
        if surface.in_shape != shape or surface.out_shape != (latent,):
            raise ConfigError(
                f"the embedding connects {surface.in_shape} with {surface.out_shape}, and should connect {shape} with {(latent,)}."
            )
        codes = latent_flow(latent, couplings, tuple(hidden), transformer) if flow is None else flow
        super().__init__(surface, codes, base, phase, reconstruction)
        self.features, self.latent, self.couplings, self.hidden = features, latent, couplings, tuple(hidden)
        self.transformer, self.seed = transformer, seed


def _moebius(shape: Shape, latent: int, seed: int) -> Embedding:
    if len(shape) != 1:
        raise ConfigError(
            f"data of shape {shape} need an embedding of their own, as transforms.ConformalEmbedding(...)."
        )
    if latent > shape[0]:
        raise ConfigError(f"latent must be at most the number of features, {shape[0]}; got {latent}.")
    between = min(latent + 1, shape[0])
    parts = [ConformalScale(shape), OrthogonalEmbedding(shape, between, seed), SpecialConformal(between, 0.1, seed)]
    return ConformalEmbedding(*parts, Pad(between, latent))
