"""Convolutions with a bounded Lipschitz constant: the bound against the matrix, and against what an attacker finds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pushforward.errors import ConfigError, InputError
from pushforward.networks import LipschitzConvNet
from pushforward.networks.lipschitz import CONTRACTIVE
from pushforward.networks.lipschitz_conv import convolution_bound


def normal(*shape: int, seed: int = 0, spread: float = 1.0) -> Tensor:
    return spread * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def matrix(weight: Tensor, height: int, width: int) -> Tensor:
    """The zero-padded convolution as a matrix, one basis image after the other."""
    size = weight.shape[1] * height * width
    images = torch.eye(size, dtype=weight.dtype).reshape(size, -1, height, width)
    return torch.nn.functional.conv2d(images, weight, padding=weight.shape[-1] // 2).flatten(1).mT


KERNELS = {
    "plain": normal(3, 2, 3, 3),
    "one channel": normal(1, 1, 3, 3, seed=1),
    "many to few": normal(2, 9, 3, 3, seed=2),
    "few to many": normal(9, 2, 5, 5, seed=3),
    "1 x 1": normal(4, 3, 1, 1, seed=4),
    "blur": torch.full((1, 1, 3, 3), 1 / 9, dtype=torch.float64),
    "edge": torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], dtype=torch.float64).reshape(1, 1, 3, 3),
    "shift": torch.nn.functional.pad(torch.ones(1, 1, 1, 1, dtype=torch.float64), (2, 0, 2, 0)),
    "huge": normal(3, 3, 3, 3, seed=5, spread=1e12),
    "tiny": normal(3, 3, 3, 3, seed=6, spread=1e-12),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("sides", [(1, 1), (2, 3), (7, 4), (12, 12)], ids=str)
@pytest.mark.parametrize("name", KERNELS)
def test_the_bound_is_one(name, sides, dtype):
    weight = KERNELS[name].to(dtype)
    norm = torch.linalg.matrix_norm(matrix(KERNELS[name], *sides), 2)
    ratio = (convolution_bound(weight, *sides).double() / norm).item()
    assert ratio >= 1 - 20 * torch.finfo(dtype).eps
    if sides == (12, 12):
        assert ratio < 1.1


def test_the_bound_gets_tighter_as_the_image_grows():
    """What is lost is what zeros around the image take away, of the order of 1 / side^2."""
    weight = KERNELS["plain"]
    lost = []
    for side in (4, 8, 16):
        norm = torch.linalg.matrix_norm(matrix(weight, side, side), 2)
        lost.append((convolution_bound(weight, side, side) / norm - 1).item())
    assert lost[0] > 2 * lost[1] > 4 * lost[2] > 0
    assert lost[2] < 0.02


def test_it_is_the_largest_singular_value_over_the_torus():
    """Of the periodic convolution, whose matrix is written out, within what Gram iteration adds."""
    weight, side = KERNELS["plain"], 6
    images = torch.eye(2 * side * side, dtype=torch.float64).reshape(-1, 2, side, side)
    around = torch.nn.functional.pad(images, (1, 1, 1, 1), mode="circular")
    norm = torch.linalg.matrix_norm(torch.nn.functional.conv2d(around, weight).flatten(1), 2)
    assert 1 - 1e-12 <= convolution_bound(weight, side - 1, side - 1) / norm <= 2 ** (1 / 128)


def test_the_bound_has_the_right_gradient_and_none_that_is_not_finite():
    assert torch.autograd.gradcheck(lambda w: convolution_bound(w, 4, 5), (normal(2, 3, 3, 3).requires_grad_(),))
    for weight in (
        torch.zeros(2, 3, 3, 3),
        torch.zeros(3, 2, 1, 1),
        KERNELS["blur"].clone(),
        1e-30 * torch.ones(1, 1, 3, 3),
    ):
        weight.requires_grad_()
        bound = convolution_bound(weight, 4, 5)
        (weight * (0.5 / bound.clamp(min=0.5))).sum().backward()
        assert weight.grad is not None
        assert torch.isfinite(weight.grad).all()


def sharpest(network: LipschitzConvNet, x: Tensor, context: Tensor | None, steps: int = 60) -> Tensor:
    """Largest slope that an attacker finds: x moves to where the Jacobian's norm grows; power iteration on each."""
    direction = normal(*x.shape, seed=77)
    for _ in range(steps):
        x = x.detach().requires_grad_()
        point = network.at(x, context)
        with torch.no_grad():
            for _ in range(5):
                direction = point.vjp(point.jvp(direction))
                direction = direction / direction.flatten(1).norm(dim=1)[:, None, None, None].clamp(min=1e-300)
        slope = point.jvp(direction).flatten(1).norm(dim=1)
        (gradient,) = torch.autograd.grad(slope.sum(), x)
        x = x + 0.5 * gradient / gradient.flatten(1).norm(dim=1)[:, None, None, None].clamp(min=1e-300)
    return slope.detach()  # pyright: ignore[reportPossiblyUnboundVariable]


@pytest.mark.parametrize("activation", CONTRACTIVE)
@pytest.mark.parametrize("spread", [0.3, 1.0, 100.0])
def test_the_bound_is_valid_for_any_weights_and_inputs(activation, spread):
    network = LipschitzConvNet((2, 6, 5), (7, 6), coefficient=0.8, activation=activation, context=2).double()
    with torch.no_grad():
        for k, parameter in enumerate(network.parameters()):
            parameter.copy_(normal(*parameter.shape, seed=k, spread=spread if parameter.dim() > 1 else 1.0))
    x, near, context = normal(60, 2, 6, 5, spread=2.0), normal(60, 2, 6, 5, seed=9, spread=1e-3), normal(60, 2, seed=10)
    with torch.no_grad():
        change = (network(x + near, context) - network(x, context)).flatten(1).norm(dim=1)
        assert (change <= 0.8 * near.flatten(1).norm(dim=1) * (1 + 1e-9)).all()
    slopes = sharpest(network, x[:20], context[:20])
    assert slopes.max() <= 0.8
    dense = torch.linalg.matrix_norm(network.at(x, context).jacobian(), 2)
    assert dense.max() <= 0.8


def test_an_attacker_can_reach_the_bound():
    """Else the test above says nothing: steep at one input, with all layers aligned, the slope is near the coefficient."""
    network = LipschitzConvNet((1, 12, 12), (1, 1), coefficient=0.8, activation="softplus").double()
    with torch.no_grad():
        for convolution in network.convolutions:
            convolution.weight.fill_(5.0)  # pyright: ignore
            convolution.bias.fill_(3.0)  # pyright: ignore
    assert 0.7 < sharpest(network, normal(3, 1, 12, 12), None, 80).max() <= 0.8


def test_small_weights_are_not_changed():
    network = LipschitzConvNet((2, 5, 5), (4,), coefficient=0.9)
    with torch.no_grad():
        for convolution in network.convolutions:
            convolution.weight.mul_(0.1)  # pyright: ignore
    for (weight, _), convolution in zip(network.layers(), network.convolutions, strict=True):
        assert torch.equal(weight, convolution.weight)  # pyright: ignore


@pytest.mark.parametrize("hidden", [(), (4,), (5, 4), (3, 4, 5)], ids=str)
@pytest.mark.parametrize(("kernel", "sides"), [(3, (7, 6)), (3, (2, 1)), (5, (4, 12)), (1, (3, 3))])
def test_jacobian_and_products(hidden, kernel, sides):
    network = LipschitzConvNet((2, *sides), hidden, kernel_size=kernel, input_bound=1.0, context=2).double()
    x, context = normal(2, 3, 2, *sides), normal(2, 3, 2, seed=1)
    point = network.at(x, context)
    torch.testing.assert_close(point.value, network(x, context))
    size = 2 * sides[0] * sides[1]

    def one(row: Tensor, given: Tensor) -> Tensor:
        return torch.autograd.functional.jacobian(lambda t: network(t, given), row).reshape(size, size)

    rows = zip(x.flatten(0, 1), context.flatten(0, 1), strict=True)
    dense = torch.stack([one(row, given) for row, given in rows]).reshape(2, 3, size, size)
    torch.testing.assert_close(point.jacobian(), dense, rtol=1e-12, atol=1e-12)
    v = normal(4, 2, 3, 2, *sides, seed=30)
    forward, backward = (torch.einsum(way, v.flatten(-3), dense) for way in ("kabi,aboi->kabo", "kabo,aboi->kabi"))
    torch.testing.assert_close(point.jvp(v).flatten(-3), forward, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(point.vjp(v).flatten(-3), backward, rtol=1e-12, atol=1e-12)


def test_errors_of_invalid_arguments():
    for options, words in (
        ({"kernel_size": 2}, "odd"),
        ({"activation": "relu"}, "activation must be"),
        ({"coefficient": 0.0}, "coefficient"),
        ({"hidden": (0,)}, "hidden"),
    ):
        with pytest.raises(ConfigError, match=words):
            LipschitzConvNet((1, 4, 4), **options)


@pytest.mark.parametrize("shape", [(2, 4), (0, 4, 4), (2, 4.0, 4), 3], ids=str)
def test_shapes_that_are_not_possible_are_refused(shape):
    with pytest.raises(ConfigError, match=r"shape must be \(channels, height, width\); got"):
        LipschitzConvNet(shape)


@pytest.mark.parametrize("shape", [(2, 5, 5), (2, 4, 5), (1, 4, 4), (4, 4)], ids=str)
def test_the_bound_is_for_images_of_one_size(shape):
    """Of a larger image the norm of the same convolutions may be larger."""
    network = LipschitzConvNet((2, 4, 4), (3,))
    for call in (network, network.at):
        with pytest.raises(InputError, match=r"reads images of shape \(\*batch, 2, 4, 4\); got"):
            call(torch.zeros(3, *shape) if len(shape) == 3 else torch.zeros(shape))
