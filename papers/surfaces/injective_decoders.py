"""First steps of two-step models: autoencoders whose decoders are injective by construction, or kept so by a penalty."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pushforward.errors import ConfigError
from pushforward.models import VAE, AutoEncoder, RectangularFlow
from pushforward.networks.mlp import MLP
from pushforward.numerics import batch_jacobian
from pushforward.transforms.embeddings.jacobian import log_volume

__all__ = ["BEFORE", "WAYS", "PenalizedAutoEncoder", "PenalizedVAE", "coupled", "inequality", "orthonormal"]

SLOPE = 0.3
"""The least slope of the activation of :func:`orthonormal`."""


def _penalty(model: AutoEncoder | VAE, x: Tensor, generator: torch.Generator | None, few: int = 16) -> Tensor:
    """Mean inequality of the singular values of the decoder, at a few codes of a batch and codes on lines between them.

    It is taken in standardized codes, as in the test of injectivity: a coordinate in which the codes hardly differ counts as a
    direction in which the decoder hardly moves.
    """
    z = model.code(x)
    scale = z.std(0) + 1e-6
    w = z[: 2 * few] / scale
    mixed = torch.rand(len(w), 1, generator=generator, dtype=z.dtype) * 1.4 - 0.2  # on the line, and a little beyond
    return inequality(lambda t: model.decode_mean(scale * t), (w + mixed * (w.roll(1, 0) - w))[:few]).mean()


class PenalizedAutoEncoder(AutoEncoder):
    """An autoencoder with a penalty on unequal singular values of the Jacobian of its decoder."""

    penalty_of_decoder = 3.0

    def loss(self, x: Tensor, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """The loss of the autoencoder, plus the penalty."""
        return super().loss(x, generator=generator) + self.penalty_of_decoder * _penalty(self, x, generator)


class PenalizedVAE(VAE):
    """A VAE with the same penalty."""

    penalty_of_decoder = 10.0

    def loss(self, x: Tensor, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """The loss of the VAE, plus the penalty."""
        return super().loss(x, generator=generator) + self.penalty_of_decoder * _penalty(self, x, generator)


def inequality(decode: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """log(tr J^T J / d) - log det(J^T J) / d at codes ``(n, d)``, shape ``(n,)``.

    It is the logarithm of the mean of the squared singular values of J, minus the mean of their logarithms: 0 where all are equal, and
    infinite where the smallest is 0. Rows without full rank, which have no gradient, count as 0.
    """
    jacobian = batch_jacobian(decode, z)[1]
    width = z.shape[-1]
    volume = log_volume(jacobian)
    full = torch.isfinite(volume)
    mean = (jacobian.square().sum((-2, -1)) / width).clamp(min=1e-30).log()
    return torch.where(full, mean - 2 * torch.where(full, volume, 0.0) / width, 0.0)


class Leaky(nn.Module):
    """SLOPE x + (1 - SLOPE) elu(x), whose slope is from SLOPE to 1."""

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return SLOPE * x + (1 - SLOPE) * F.elu(x)


class Orthonormal(nn.Module):
    """x to gain Q x + bias with Q = W L^-T for W^T W = L L^T, so that Q has orthonormal columns.

    Args:
        narrow: width of x.
        wide: width of the result, at least that of x.
    """

    def __init__(self, narrow: int, wide: int) -> None:
        super().__init__()
        if wide < narrow:
            raise ConfigError(
                f"a matrix with orthonormal columns maps to at least as many numbers; got {narrow} to {wide}."
            )
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(wide, narrow)))
        self.bias = nn.Parameter(torch.zeros(wide))
        self.log_gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """``(*batch, narrow)`` to ``(*batch, wide)``."""
        factor = torch.linalg.cholesky(self.weight.mT @ self.weight)
        columns = torch.linalg.solve_triangular(factor, self.weight.mT, upper=False)
        return self.log_gain.exp() * (x @ columns) + self.bias


class PairCodec(nn.Module):
    """An encoder network and any decoder of flat images, in the place of the codec of an autoencoder.

    Args:
        encoder: flat scaled images to codes.
        decoder: codes to flat scaled images.
        shape: shape of an image.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.encoder, self.decoder, self.shape = encoder, decoder, shape

    def encode(self, x: Tensor) -> Tensor:
        """``(*batch, *shape)`` to ``(*batch, latent)``."""
        return self.encoder(x.flatten(x.dim() - len(self.shape))).to(x.dtype)

    def decode(self, z: Tensor) -> Tensor:
        """``(*batch, latent)`` to ``(*batch, *shape)``."""
        return self.decoder(z).to(z.dtype).reshape(*z.shape[:-1], *self.shape)


class Half(nn.Module):
    """One direction of an embedding as a module; the parameters belong to the first one that is made."""

    def __init__(self, function: Callable[[Tensor], Tensor], owned: nn.Module | None = None) -> None:
        super().__init__()
        self.owned = owned
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """The function."""
        return self.function(x)


def orthonormal(shape: tuple[int, ...], latent: int, hidden: tuple[int, ...]) -> AutoEncoder:
    """A decoder of matrices with orthonormal columns, learned factors, and activations with slopes from 0.3 to 1.

    The smallest singular value of J is at least 0.3^k of the largest, for k hidden layers. The widths must not fall from the code
    to the image.
    """
    model = AutoEncoder(shape, latent, levels=256, hidden=hidden)
    widths = (latent, *hidden, math.prod(shape))
    layers: list[nn.Module] = []
    for index, (narrow, wide) in enumerate(itertools.pairwise(widths)):
        layers.append(Orthonormal(narrow, wide))
        if index < len(widths) - 2:
            layers.append(Leaky())
    _replace(model, MLP(math.prod(shape), latent, hidden, activation="elu"), nn.Sequential(*layers), shape)
    return model


def coupled(shape: tuple[int, ...], latent: int, hidden: tuple[int, ...]) -> AutoEncoder:
    """Codes padded with zeros and sent through invertible couplings, as in a rectangular flow; the encoder is their inverse."""
    model = AutoEncoder(shape, latent, levels=256, hidden=hidden)
    flow = RectangularFlow(math.prod(shape), latent, layers=4, hidden=hidden[:1], latent_layers=0, standardize=False)
    embedding = flow.embedding
    _replace(model, Half(embedding.codes, embedding), Half(embedding.decode), shape)
    return model


def _replace(model: AutoEncoder, encoder: nn.Module, decoder: nn.Module, shape: tuple[int, ...]) -> None:
    model.chain[1].codec = PairCodec(encoder, decoder, shape)  # pyright: ignore[reportArgumentType]


Make = Callable[[tuple[int, ...], int, tuple[int, ...]], "AutoEncoder | VAE"]


def _autoencoder(kind: type[AutoEncoder] = AutoEncoder, **options: Any) -> Make:
    return lambda shape, latent, hidden: kind(shape, latent, levels=256, hidden=hidden, **options)


def _vae(kind: type[VAE] = VAE, **options: Any) -> Make:
    return lambda shape, latent, hidden: kind(shape, latent=latent, levels=256, hidden=hidden, **options)


BEFORE = {"AE": _autoencoder(), "WAE": _autoencoder(penalty="mmd", penalty_weight=300.0), "VAE": _vae()}
"""The first steps of the other measurements: functions of the shape of an image, the width of the code and the hidden widths."""

WAYS: dict[str, Make] = {
    "AE, penalty on unequal singular values": _autoencoder(PenalizedAutoEncoder),
    "AE, orthonormal matrices": orthonormal,
    "AE, couplings of padded codes": coupled,
    "VAE, elu": _vae(activation="elu"),  # relu, the default, maps whole regions to one point
    "VAE, elu and free bits": _vae(activation="elu", free_bits=0.5),  # no coordinate of the code goes unused
    "VAE, elu and penalty": _vae(PenalizedVAE, activation="elu"),
}
"""The same, with decoders that are injective by construction or kept so."""
