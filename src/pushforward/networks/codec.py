"""Encoder and decoder networks between data and latent vectors."""

from __future__ import annotations

import math

from torch import nn

from pushforward.errors import ConfigError
from pushforward.networks.image_codec import ConvDecoder, ConvEncoder
from pushforward.networks.mlp import MLP

__all__ = ["encoder_and_decoder"]


def encoder_and_decoder(
    shape: tuple[int, ...],
    latent: int,
    codes: int,
    count: int,
    hidden: tuple[int, ...],
    channels: tuple[int, ...],
    activation: str,
    context: int = 0,
) -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder networks between data and latent vectors, convolutional if ``channels`` are given.

    Args:
        shape: event shape of the data: (D,), or (channels, height, width).
        latent: width of the decoder's input.
        codes: width of the encoder's output.
        count: number of decoder outputs for each pixel, or for each coordinate of a vector.
        hidden: widths of the hidden layers, if there are no convolutions.
        channels: widths of the convolutional layers.
        activation: name of the activation function.
        context: width of a context that both read with their input; a convolutional encoder reads it as constant planes.

    Raises:
        ConfigError: if ``channels`` are given and the data are vectors.
    """
    if not channels:
        size, pixels = math.prod(shape), math.prod(shape[1:] if len(shape) == 3 else shape)
        return (
            MLP(size + context, codes, hidden, activation=activation, output_gain=0.1),
            MLP(latent + context, count * pixels, hidden, activation=activation, input_bound=10.0),
        )
    if len(shape) != 3:
        raise ConfigError(
            f"channels are for convolutions on images; got channels={channels!r} with features={shape!r}."
        )
    image, out = (shape[0] + context, shape[1], shape[2]), (count, shape[1], shape[2])
    return ConvEncoder(image, codes, channels, activation), ConvDecoder(latent + context, out, channels, activation)
