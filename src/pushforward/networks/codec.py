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
    """Encoder and decoder networks between data and latent vectors, convolutional if there are ``channels``.

    Args:
        shape: of the data: (D,), or (channels, height, width).
        latent: width of what the decoder reads.
        codes: width of what the encoder gives.
        count: outputs of the decoder for each pixel, or for each coordinate of a vector.
        hidden: widths of the hidden layers without convolutions.
        channels: of the convolutions.
        activation: of the networks.
        context: width of a context that both read beside their input: planes of it where the encoder is convolutional.

    Raises:
        ConfigError: if convolutions shall read a vector.
    """
    if not channels:
        size, pixels = math.prod(shape), math.prod(shape[1:] if len(shape) == 3 else shape)
        return (
            MLP(size + context, codes, hidden, activation=activation, output_gain=0.1),
            MLP(latent + context, count * pixels, hidden, activation=activation, input_bound=10.0),
        )
    if len(shape) != 3:
        raise ConfigError(f"convolutions read images; got features={shape!r} with channels={channels!r}.")
    image, out = (shape[0] + context, shape[1], shape[2]), (count, shape[1], shape[2])
    return ConvEncoder(image, codes, channels, activation), ConvDecoder(latent + context, out, channels, activation)
