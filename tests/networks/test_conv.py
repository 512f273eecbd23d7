"""ConvNet: its layers, its reach, its bounded output."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pushforward.errors import ConfigError, InputError
from pushforward.networks import ConvNet


def kernels(network: nn.Module) -> list[int]:
    return [part.kernel_size[0] for part in network.modules() if isinstance(part, nn.Conv2d)]


def reach(network: ConvNet, side: int = 9) -> int:
    """How far, in pixels, the output in the middle sees."""
    x = torch.randn(1, network.inputs, side, side, requires_grad=True)
    middle = side // 2
    network(x)[0, :, middle, middle].sum().backward()
    return max((position - middle).abs().max().item() for position in x.grad.abs().sum((0, 1)).nonzero())


def test_plain_is_three_one_three():
    network = ConvNet(2, 4, (8, 6), output_gain=1.0)
    assert kernels(network) == [3, 1, 3]
    assert reach(network) == 2
    assert kernels(ConvNet(2, 4, ())) == [3]


def test_residual_has_two_convolutions_a_block():
    network = ConvNet(2, 4, (8, 8), residual=True, output_gain=1.0, dropout=0.1).eval()
    assert kernels(network) == [3, 3, 3, 3, 3, 3]
    assert reach(network, 15) == 6


def test_starts_at_zero_and_output_is_bounded():
    network = ConvNet(2, 3, (8,), input_bound=2.0)
    assert (network(torch.randn(4, 2, 5, 5)) == 0).all()
    with torch.no_grad():
        network.last.weight.normal_()
    x = torch.full((1, 2, 5, 5), 1e30)
    assert torch.equal(network(x), network(torch.full_like(x, 2.0)))


def test_an_image_does_not_depend_on_other_images():
    network = ConvNet(2, 3, (8, 8), residual=True, output_gain=1.0).double()
    x = torch.randn(5, 2, 3, 3).double()
    torch.testing.assert_close(network(x)[2:3], network(x[2:3]), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    "options", [{"kernel_size": 2}, {"kernel_size": 0}, {"hidden": (8, 4), "residual": True}, {"dropout": 1.0}, {"activation": "none"}]
)  # fmt: skip
def test_errors(options):
    with pytest.raises(ConfigError):
        ConvNet(2, 3, **{"hidden": (8, 8), **options})


def normalized(*, dropout: float = 0.0) -> ConvNet:
    torch.manual_seed(0)
    made = ConvNet(2, 2, (6, 6), residual=True, normalize=True, output_gain=1.0, dropout=dropout).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def test_gathered_statistics_are_those_of_all_rows_and_rows_are_independent_afterwards():
    network, x = normalized(dropout=0.5), 3 * torch.randn(400, 2, 4, 4, dtype=torch.float64) + 1
    before = [part.training for part in network.modules()]
    with network.gathering(), torch.no_grad():
        network(x)
    assert [part.training for part in network.modules()] == before
    network.eval()
    inner = []
    handles = [norm.register_forward_hook(lambda _, __, out: inner.append(out)) for block in network.body
               if hasattr(block, "norms") for norm in block.norms]  # fmt: skip
    whole = network(x)
    assert len(inner) == len(handles) == 4
    for out, norm in zip(inner, [n for b in network.body if hasattr(b, "norms") for n in b.norms], strict=True):
        torch.testing.assert_close(out.mean((0, 2, 3)), norm.bias, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(
            out.std((0, 2, 3), correction=0), norm.weight.abs(), rtol=1e-4, atol=1e-4
        )  # but for eps
    torch.testing.assert_close(network(x[7:8]), whole[7:8])
    network.train()
    assert not torch.allclose(network(x[:10])[3], whole[3], atol=1e-3)  # in training they do see each other


def test_the_length_of_a_kernel_is_its_gain():
    network = normalized()
    block = next(part for part in network.modules() if hasattr(part, "norms") and part.norms is not None)
    x = torch.randn(3, 6, 4, 4, dtype=torch.float64)
    before = block.first(x)
    with torch.no_grad():
        block.first.weight.mul_(7.0)
    torch.testing.assert_close(block.first(x), before)
    fresh = ConvNet(2, 2, (6,), residual=True, normalize=True)
    first = next(part for part in fresh.modules() if hasattr(part, "norms") and part.norms is not None).first
    plain = torch.nn.functional.conv2d(x.float(), first.weight, first.bias, padding=1)
    torch.testing.assert_close(first(x.float()), plain)


def test_normalization_of_one_pixel_and_what_is_refused():
    network = normalized().train()
    assert torch.isfinite(network(torch.randn(1, 2, 1, 1, dtype=torch.float64))).all()
    with pytest.raises(ConfigError, match="residual"):
        ConvNet(2, 2, normalize=True)


@pytest.mark.parametrize("shape", [(3, 4, 8, 8), (8, 8), (4, 1, 8, 8)], ids=str)
def test_another_number_of_channels_is_refused(shape):
    with pytest.raises(InputError, match=r"ConvNet reads images of shape \(\*batch, 2, height, width\); got"):
        ConvNet(2, 2)(torch.zeros(shape))


def test_hooks_are_called():
    network, called = ConvNet(2, 2, (4, 4), output_gain=1.0), []
    x = torch.randn(3, 2, 5, 5, requires_grad=True)
    expected = network(x)
    for name, part in network.body.named_children():
        part.register_forward_hook(lambda *_, name=name: called.append(name))
        part.register_full_backward_hook(lambda *_, name=name: called.append(name))
    found = network(x)
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    assert called == ["0", "1", "2", "3", "3", "2", "1", "0"]
