"""The autoregressive transform of tokens, and patches of images as tokens."""

import math

import pytest
import torch

from pushforward.errors import ConfigError
from pushforward.likelihood import UNIT
from pushforward.transforms import AdditiveTransformer, CircularSplineTransformer, Patches, TokenAutoregressive


@pytest.mark.parametrize(("shape", "patch"), [((1, 4, 6), 2), ((3, 6, 3), 3), ((2, 3, 5), 1), ((1, 1, 1), 1)], ids=str)
def test_patches_are_blocks_of_the_image(shape, patch):
    cut = Patches(shape, patch)
    channels, height, width = shape
    x = torch.randn(2, 3, *shape)
    z = cut.encode(x).z
    assert z.shape == (2, 3, height * width // patch**2, channels * patch**2)
    position = 0
    for row in range(0, height, patch):
        for column in range(0, width, patch):
            cell = x[..., row : row + patch, column : column + patch]
            assert torch.equal(z[..., position, :], cell.flatten(-3))
            position += 1
    assert torch.equal(cut.decode(z), x)


@pytest.mark.parametrize("flip", [False, True])
def test_a_token_depends_on_those_before_it_and_on_itself_coordinate_by_coordinate(flip):
    torch.manual_seed(0)
    layer = TokenAutoregressive((4, 2), flip=flip, width=8, layers=2, heads=2).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    x = torch.randn(1, 4, 2, dtype=torch.float64)
    seen = torch.autograd.functional.jacobian(lambda x: layer.encode(x).z, x)[0, :, :, 0] != 0
    before = torch.ones(4, 4).triu(1).bool() if flip else torch.ones(4, 4).tril(-1).bool()
    expected = before[:, None, :, None].expand(4, 2, 4, 2).clone()
    for token in range(4):
        expected[token, :, token, :] = torch.eye(2, dtype=torch.bool)
    assert torch.equal(seen, expected)


def test_the_inverse_is_that_of_fixed_point_sweeps():
    """N sweeps x <- f^-1(z; network(x)) solve a triangular system exactly, without a cache."""
    torch.manual_seed(0)
    layer = TokenAutoregressive((5, 3), width=16, layers=2).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    z = torch.randn(4, 5, 3, dtype=torch.float64)
    x = torch.zeros_like(z)
    for _ in range(5):
        raw = layer.network(x)
        x, slope = layer.transformer.inverse(z, layer._parameters_first(raw))
    found, contribution = layer.decode_with_contribution(z)
    torch.testing.assert_close(found, x, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(contribution, slope.flatten(1).sum(-1), rtol=1e-10, atol=1e-10)


def test_gradients_go_through_the_inverse():
    torch.manual_seed(0)
    layer = TokenAutoregressive((3, 1), AdditiveTransformer(), width=4, layers=1, heads=1).double()
    z = torch.randn(2, 3, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer.decode, (z,))


@pytest.mark.parametrize(
    "make",
    [lambda: Patches((1, 4, 5), 2), lambda: Patches((4, 4), 2), lambda: Patches((1, 4, 4), 0),
     lambda: TokenAutoregressive(4), lambda: TokenAutoregressive((1, 4, 4)),
     lambda: TokenAutoregressive((4, 2), CircularSplineTransformer(4)),
     lambda: TokenAutoregressive((4, 2), width=6, heads=4)],
)  # fmt: skip
def test_impossible_arguments(make):
    with pytest.raises(ConfigError):
        make()


class OnInterval(AdditiveTransformer):
    """The identity on [0, 1]."""

    support = UNIT

    def forward(self, x, raw):
        return x, torch.zeros_like(x)

    inverse = forward


def test_outside_the_support_of_the_transformer_is_impossible():
    layer = TokenAutoregressive((2, 1), OnInterval(), width=4, layers=1, heads=1)
    x = torch.tensor([[0.2, 0.3], [0.2, 1.5]]).unsqueeze(-1)
    assert layer.encode(x).contribution.tolist() == [0.0, -math.inf]
