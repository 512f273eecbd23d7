"""Rectangular flows (Caterini et al. 2021, arXiv 2106.01413), with M-flow and free-form injective flows."""

from __future__ import annotations

import torch
from torch import Tensor

from pushforward.errors import ConfigError
from pushforward.models.manifold.surface import SurfaceModel, latent_flow
from pushforward.numerics.checks import check_choice, check_integer, check_number, check_positive
from pushforward.registry import register
from pushforward.transforms import (
    Chain,
    Coupling,
    Embedding,
    FreeFormEmbedding,
    Householder,
    Injective,
    Standardize,
    Transform,
)
from pushforward.transforms import Transformer as Law
from pushforward.transforms.embeddings.jacobian import Solve, encoder_surrogate, volume_surrogate

__all__ = ["RectangularFlow"]

VOLUMES = ("exact", "probes", "encoder")


@register("models")
class RectangularFlow(SurfaceModel):
    """log p(x) = log p_flow(z) - 1/2 log det J^T J at z = g+(x), on a d-surface in R^D that g makes of R^d.

    g is a flow of R^D behind zero padding (RNF), or a free decoder (FIF). Training minimizes -mean log p + reconstruction *
    mean residual, and finds the gradient of the volume

    - "exact"ly, from the D x d Jacobian by d forward-mode products and a Cholesky factor;
    - with "probes": random signs and conjugate gradients, without the Jacobian (:func:`~pushforward.transforms.embeddings.jacobian.volume_surrogate`);
      :attr:`solve` holds the last solve's iterations and residual;
    - by the "encoder", without any system to solve (FIF, Sorrenson et al. 2024, arXiv 2306.01843).

    The last two are in ``loss`` alone, whose value then means nothing. ``evaluate`` always has the exact volume: EXACT on
    Manifold(d, D) for a flow, which cannot fold, and ESTIMATE for free networks, which may. A code at which J has no full rank
    has log-density -inf. M-flow's training is two calls of ``fit``, after ``begin("manifold")`` and after ``begin("density")``.

    Args:
        features: D.
        latent: d.
        decoder: "flow" (affine couplings and a learned rotation) or "free-form" (two MLPs).
        volume: "exact", "probes" or "encoder".
        probes: random vectors a row, of the last two ways (at most d of them with "encoder").
        tolerance: of the conjugate gradients, relative. A loose one biases the gradient.
        noise: standard deviation of normal noise on the rows of the loss (FIF has 0.01 in standardized units), in the data's
            units; off the surface the volume term rewards no curvature.
        couplings: of the flow of R^D.
        hidden: widths of the hidden layers of its networks, or of the free ones.
        latent_couplings: of the flow of the codes.
        latent_hidden: widths of their hidden layers.
        transformer: law of the codes' couplings; None for the affine one.
        reconstruction: weight of the residual.
        phase: what training minimizes, "joint", "manifold" or "density".
        standardize: standardize the data first, inside g.
        seed: of the rotation's start.

    Raises:
        ConfigError: for impossible sizes or unknown names.

    Example:
        >>> import torch
        >>> model = RectangularFlow(3, latent=2, volume="probes", hidden=(16,), latent_hidden=(16,))
        >>> x = torch.randn(4, 3)
        >>> loss = model.loss(x)
        >>> model.solve.iterations <= 4, model.evaluate(x).kind.value
        (True, 'exact')
    """

    def __init__(
        self,
        features: int,
        latent: int,
        *,
        decoder: str = "flow",
        volume: str = "exact",
        probes: int = 1,
        tolerance: float = 1e-3,
        noise: float = 0.0,
        couplings: int = 6,
        hidden: tuple[int, ...] = (64, 64),
        latent_couplings: int = 4,
        latent_hidden: tuple[int, ...] = (64, 64),
        transformer: Law | None = None,
        reconstruction: float = 50.0,
        phase: str = "joint",
        standardize: bool = True,
        seed: int = 0,
    ) -> None:
        check_choice("volume", volume, VOLUMES)
        check_number("tolerance", tolerance, 0, 1)
        check_positive("noise", noise, zero=True)
        check_integer("probes", probes)
        check_integer("latent", latent)
        surface = _embedding(decoder, features, latent, couplings, tuple(hidden), standardize, seed)
        codes = latent_flow(latent, latent_couplings, tuple(latent_hidden), transformer)
        super().__init__(surface, codes, None, phase, reconstruction)
        self.features, self.latent, self.decoder, self.volume, self.probes = (
            features,
            latent,
            decoder,
            volume,
            probes,
        )
        self.tolerance, self.noise, self.couplings, self.hidden = tolerance, noise, couplings, tuple(hidden)
        self.latent_couplings, self.latent_hidden = latent_couplings, tuple(latent_hidden)
        self.transformer, self.standardize, self.seed = transformer, standardize, seed
        self.solve: Solve | None = None

    def loss(self, x: Tensor, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """By phase; of rows with noise on them, where there is some."""
        if self.noise and self.phase == "joint":
            x, _, far = self._prepare(x, context)
            drawn = torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)
            return super().loss(x + self.noise * drawn, context, generator=generator) - far.mean()
        return super().loss(x, context, generator=generator)

    def _volume(
        self, x: Tensor, z: Tensor, context: Tensor | None, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        surface = self.embedding
        if self.volume == "exact":
            return surface.decode_with_volume(z)
        if self.volume == "probes":
            value, self.solve = volume_surrogate(
                surface.decode, z, probes=self.probes, tolerance=self.tolerance, generator=generator
            )
            return surface.decode(z), value
        value = encoder_surrogate(surface.codes, surface.decode, x, z, probes=self.probes, generator=generator)
        return surface.decode(z), -value


def _embedding(
    decoder: str, features: int, latent: int, couplings: int, hidden: tuple[int, ...], standardize: bool, seed: int
) -> Embedding:
    if decoder == "free-form":
        if not standardize:
            raise ConfigError("free networks standardize the data: leave standardize=True.")
        return FreeFormEmbedding(features, latent, hidden=hidden)
    if decoder != "flow":
        raise ConfigError(f"decoder must be 'flow' or 'free-form'; got {decoder!r}.")
    transforms: list[Transform] = [Standardize(features)] if standardize else []
    options = {"hidden": hidden, "activation": "silu"}
    transforms += [Coupling(features, flip=k % 2 == 1, **options) for k in range(check_integer("couplings", couplings))]
    # So many reflections turn any d directions into the first d coordinates.
    return Injective(Chain(*transforms, Householder(features, min(latent, features), seed)), latent)
