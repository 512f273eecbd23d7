"""Autoencoders whose decoders are injective by construction, or kept so by a penalty."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pushforward.errors import ConfigError
from pushforward.models import AutoEncoder, RectangularFlow
from pushforward.networks.mlp import MLP
from pushforward.numerics import batch_jacobian
from pushforward.transforms.embeddings.jacobian import log_volume

__all__ = ["WAYS", "LeastSingular", "coupled", "orthonormal", "penalized"]

SLOPE = 0.3
"""The least slope of the activation of :func:`orthonormal`."""


class LeastSingular(AutoEncoder):
    """An autoencoder with a penalty on unequal singular values of the decoder's Jacobian J.

    The penalty is log(mean of the squared singular values) - mean of their logarithms, at a few codes of each batch and codes on
    lines between them. It is 0 where all are equal, and infinite where the smallest is 0.

    Args:
        weight: weight of the penalty.
        few: number of codes in each batch.
    """

    weight: float = 3.0
    few: int = 16

    def loss(self, x: Tensor, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """The loss of the autoencoder, plus the penalty."""
        z = self.code(x[: 2 * self.few])
        mixed = (
            torch.rand(len(z), 1, generator=generator, dtype=z.dtype) * 1.4 - 0.2
        )  # on the line, and a little beyond
        z = (z + mixed * (z.roll(1, 0) - z))[: self.few]
        return super().loss(x, generator=generator) + self.weight * inequality(self.decode_mean, z).mean()


def inequality(decode: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """log(tr J^T J / d) - log det(J^T J) / d at codes ``(n, d)``, shape ``(n,)``; 0 for equal singular values."""
    jacobian = batch_jacobian(decode, z)[1]
    width = z.shape[-1]
    return (jacobian.square().sum((-2, -1)) / width).log() - 2 * log_volume(jacobian) / width


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


def penalized(shape: tuple[int, ...], latent: int, hidden: tuple[int, ...]) -> AutoEncoder:
    """The plain autoencoder with the penalty of :class:`LeastSingular`."""
    return LeastSingular(shape, latent, levels=256, hidden=hidden)


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


def plain(shape: tuple[int, ...], latent: int, hidden: tuple[int, ...]) -> AutoEncoder:
    """The autoencoder of the other measurements."""
    return AutoEncoder(shape, latent, levels=256, hidden=hidden)


WAYS: dict[str, Callable[[tuple[int, ...], int, tuple[int, ...]], AutoEncoder]] = {
    "plain": plain,
    "penalty on unequal singular values": penalized,
    "orthonormal matrices": orthonormal,
    "couplings of padded codes": coupled,
}
"""Functions of the shape of an image, the width of the code and the hidden widths, by name."""
