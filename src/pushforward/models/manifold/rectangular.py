"""Rectangular flows (Caterini et al. 2021, arXiv 2106.01413), with M-flow and free-form injective flows."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pushforward.errors import ConfigError
from pushforward.models.image.building import check_image_shape, realnvp_scales
from pushforward.models.manifold.base import ManifoldModel, latent_flow
from pushforward.models.vector.building import coupling_layers
from pushforward.numerics.checks import check_choice, check_integer, check_number, check_positive, check_widths
from pushforward.registry import register
from pushforward.transforms import (
    ActNorm,
    AffineTransformer,
    Chain,
    Embedding,
    FreeFormEmbedding,
    Householder,
    Injective,
    Standardize,
    Transform,
    Transformer,
)
from pushforward.transforms.base import Shape, as_shape
from pushforward.transforms.embeddings.jacobian import Solve, encoder_surrogate, volume_surrogate

__all__ = ["RectangularFlow"]

VOLUMES = ("exact", "probes", "encoder")


@register("models")
class RectangularFlow(ManifoldModel):
    """log p(x) = log p_flow(z) - 1/2 log det J^T J at z = g+(x), on the d-manifold g(R^d) in R^D.

    g is zero padding followed by a flow of R^D (RNF), or a decoder network without an inverse (FIF). The flow of images is a
    multi-scale Real NVP, as in the paper; images are real numbers in any unit, which is that of the residual. Training minimizes
    -mean log p + reconstruction_weight * mean residual. ``volume`` chooses how it computes the gradient of the volume:

    - "exact": from the D x d Jacobian by d forward-mode products and a Cholesky factor;
    - "probes": by random signs and conjugate gradients, without the Jacobian
      (:func:`~pushforward.transforms.embeddings.jacobian.volume_surrogate`); :attr:`solve` has the iterations and the
      residual of the last solve;
    - "encoder": by the encoder, without any linear system (FIF, Sorrenson et al. 2024, arXiv 2306.01843).

    The last two are used in ``loss`` alone, and the value of the loss then has no meaning. ``evaluate`` always has the
    exact volume: EXACT on Manifold(d, D) for a flow, whose manifold cannot intersect itself, and ESTIMATE for networks
    without an inverse. A code at which J does not have full rank has log-density -inf. The training of the M-flow is
    two calls of ``fit``, after ``set_phase("manifold")`` and after ``set_phase("density")``.

    Args:
        features: D, or the shape (channels, height, width) of images, whose sides can be halved ``scales`` - 1 times.
        latent: d.
        decoder: "flow" (affine couplings and a learned rotation) or, for vectors, "free-form" (two MLPs).
        volume: "exact", "probes" or "encoder".
        probes: number of random vectors for each row with "probes" and "encoder" (at most d with "encoder").
        tolerance: relative tolerance of the conjugate gradients. A loose one biases the gradient.
        noise: standard deviation of normal noise that the loss adds to the rows, in the units of the data (FIF has 0.01
            in standardized units). With noise, the volume term does not reward curvature beside the manifold.
        layers: number of couplings of the flow of R^D; of images, in each scale (the paper has 6), half of them on each kind of
            mask, and one more than half in the last scale.
        hidden: widths of the hidden layers of the networks of g; of images, the number and equal width of the residual
            convolutional blocks (the paper has 8 of 64).
        scales: number of scales of images.
        latent_layers: number of couplings of the flow of the codes.
        latent_hidden: widths of the hidden layers of their networks.
        transformer: transformer of the couplings of the codes; None for the affine one.
        reconstruction_weight: weight of the residual in the loss.
        phase: what training minimizes, "joint", "manifold" or "density".
        standardize: standardize the data first, inside g; images by channel.
        seed: seed of the initial rotation.

    Raises:
        ConfigError: for sizes that are not possible or unknown names.

    Example:
        >>> import torch
        >>> model = RectangularFlow(3, latent=2, volume="probes", hidden=(16,), latent_hidden=(16,))
        >>> x = torch.randn(4, 3)
        >>> loss = model.loss(x)
        >>> model.solve.iterations <= 4, model.evaluate(x).kind.value
        (True, 'exact')
        >>> images = RectangularFlow((1, 8, 8), latent=2, layers=2, hidden=(8,), latent_hidden=(16,))
        >>> str(images.measure), images.sample(3).shape
        ('Manifold(2, 64)', torch.Size([3, 1, 8, 8]))
    """

    def __init__(
        self,
        features: int | Shape,
        latent: int,
        *,
        decoder: str = "flow",
        volume: str = "exact",
        probes: int = 1,
        tolerance: float = 1e-3,
        noise: float = 0.0,
        layers: int = 6,
        hidden: tuple[int, ...] = (64, 64),
        scales: int = 2,
        latent_layers: int = 4,
        latent_hidden: tuple[int, ...] = (64, 64),
        transformer: Transformer | None = None,
        reconstruction_weight: float = 50.0,
        phase: str = "joint",
        standardize: bool = True,
        seed: int = 0,
    ) -> None:
        check_choice("volume", volume, VOLUMES)
        check_number("tolerance", tolerance, 0, 1)
        check_positive("noise", noise, zero=True)
        check_integer("probes", probes)
        check_integer("latent", latent)
        check_integer("latent_layers", latent_layers, 0)
        check_integer("scales", scales)
        check_integer("seed", seed, None)
        hidden, latent_hidden = check_widths("hidden", hidden), check_widths("latent_hidden", latent_hidden)
        embedding = _embedding(decoder, features, latent, layers, hidden, scales, standardize, seed)
        codes = latent_flow(latent, latent_layers, latent_hidden, transformer)
        super().__init__(embedding, codes, None, phase, reconstruction_weight)
        self.features, self.latent, self.decoder, self.volume = features, latent, decoder, volume
        self.probes, self.tolerance, self.noise = probes, tolerance, noise
        self.layers, self.hidden, self.scales = layers, hidden, scales
        self.latent_layers, self.latent_hidden = latent_layers, latent_hidden
        self.transformer, self.standardize, self.seed = transformer, standardize, seed
        self.solve: Solve | None = None

    def loss(self, x: Tensor, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """What training minimizes in this phase, a scalar, with ``noise`` added to the rows in the phase "joint"."""
        if self.noise and self.phase == "joint":
            x, _, far = self.prepare(x, context)
            drawn = torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)
            return super().loss(x + self.noise * drawn, context, generator=generator) - far.mean()
        return super().loss(x, context, generator=generator)

    def _volume(
        self, x: Tensor, z: Tensor, context: Tensor | None, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        embedding = self.embedding
        if self.volume == "exact":
            return embedding.decode_with_volume(z)
        if self.volume == "probes":
            value, self.solve = volume_surrogate(
                embedding.decode, z, probes=self.probes, tolerance=self.tolerance, generator=generator
            )
            return embedding.decode(z), value
        value = encoder_surrogate(embedding.codes, embedding.decode, x, z, probes=self.probes, generator=generator)
        return embedding.decode(z), -value


def _embedding(
    decoder: str,
    features: int | Shape,
    latent: int,
    layers: int,
    hidden: tuple[int, ...],
    scales: int,
    standardize: bool,
    seed: int,
) -> Embedding:
    """The embedding g with its encoder g+."""
    check_choice("decoder", decoder, ("flow", "free-form"))
    shape = as_shape(features)
    count = math.prod(shape)
    images = len(shape) > 1
    if decoder == "free-form":
        if images:
            raise ConfigError("decoder='free-form' reads vectors: leave decoder='flow', or flatten the images.")
        if not standardize:
            raise ConfigError("decoder='free-form' always standardizes the data: leave standardize=True.")
        return FreeFormEmbedding(count, latent, hidden=hidden)
    transforms: list[Transform] = [ActNorm(shape) if images else Standardize(shape)] if standardize else []
    if images:
        check_image_shape("RectangularFlow", shape)
        network = {"hidden": hidden, "activation": "silu"}
        transforms.append(
            realnvp_scales(shape, scales=scales, layers=layers, transformer=AffineTransformer(), network=network)
        )
    else:
        transforms += coupling_layers(count, AffineTransformer(), layers, hidden=hidden, activation="silu")
    # d reflections can turn any d directions into the first d coordinates.
    return Injective(Chain(*transforms, Householder(count, min(latent, count), seed)), latent)
