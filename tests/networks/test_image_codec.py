"""Convolutional encoder and decoder: sizes, reach, and bounds."""

import pytest
import torch

from pushforward.errors import ConfigError
from pushforward.networks.image_codec import ConvDecoder, ConvEncoder

SHAPES = [(1, 7, 5), (3, 8, 8), (2, 1, 1), (1, 1, 9), (1, 28, 28)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("channels", [(4,), (4, 6), (2, 3, 4)])
def test_any_size_is_encoded_and_decoded(shape, channels):
    encoder, decoder = ConvEncoder(shape, 5, channels), ConvDecoder(5, (7, *shape[1:]), channels)
    for batch in ((), (2,), (2, 3), (0,)):
        z = encoder(torch.randn(*batch, *shape))
        assert z.shape == (*batch, 5)
        assert decoder(z).shape == (*batch, 7, *shape[1:])


@pytest.mark.parametrize("shape", SHAPES[:4], ids=str)
def test_every_pixel_reaches_the_vector_and_the_vector_every_pixel(shape):
    torch.manual_seed(0)
    encoder = ConvEncoder(shape, 3, (4, 6), activation="tanh").double()
    decoder = ConvDecoder(3, shape, (4, 6), activation="tanh").double()
    x, z = torch.randn(shape, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    assert (torch.autograd.functional.jacobian(encoder, x) != 0).all()
    assert (torch.autograd.functional.jacobian(decoder, z) != 0).all()


def test_under_vmap():
    """Exact likelihoods on the manifold of a decoder push many directions through it at once."""
    encoder, decoder = ConvEncoder((1, 4, 4), 2, (3,)), ConvDecoder(2, (1, 4, 4), (3,))
    z = torch.randn(5, 2)
    x = decoder(z)
    torch.testing.assert_close(torch.vmap(decoder)(z), x)
    torch.testing.assert_close(torch.vmap(encoder)(x), encoder(x))


def test_far_vectors_are_clamped_to_the_bound():
    decoder = ConvDecoder(2, (1, 4, 4), (3,))
    far = decoder(torch.full((1, 2), 1e20))
    assert torch.equal(far, decoder(torch.full((1, 2), 10.0)))


@pytest.mark.parametrize("make", [lambda: ConvEncoder((1, 4, 4), 0, (4,)), lambda: ConvEncoder((1, 4, 4), 3, (0,)),
                                  lambda: ConvDecoder(3, (1, 4, 4), (4.5,)),
                                  lambda: ConvEncoder((1, 4, 4), 3, (4,), "square")])  # fmt: skip
def test_impossible_arguments(make):
    with pytest.raises(ConfigError):
        make()
