"""Decoders that are injective by construction, and the penalty that keeps others so."""

import math

import pytest
import torch

from papers.surfaces.injective_decoders import BEFORE, SLOPE, WAYS, coupled, inequality, orthonormal
from pushforward.errors import ConfigError
from pushforward.numerics import batch_jacobian

SHAPE = (1, 4, 4)


def test_the_penalty_is_zero_for_equal_singular_values_and_rises_with_their_ratio():
    z = torch.zeros(3, 2)
    turn = torch.linalg.qr(torch.randn(16, 2, generator=torch.Generator().manual_seed(0)))[0]
    torch.testing.assert_close(inequality(lambda t: 5 * t @ turn.T, z), torch.zeros(3), atol=1e-5, rtol=0)
    stretched = turn * torch.tensor([1.0, 2.0])  # squares 1 and 4: log 2.5 - log(4) / 2
    torch.testing.assert_close(inequality(lambda t: t @ stretched.T, z), torch.full((3,), math.log(1.25)))
    assert inequality(lambda t: t @ torch.zeros(2, 16), z).tolist() == [0.0] * 3  # without rank there is no gradient


def test_singular_values_of_orthonormal_decoders_are_bounded_for_any_weights():
    torch.manual_seed(0)
    model = orthonormal(SHAPE, 2, (8, 16))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    jacobian = batch_jacobian(model.decode_mean, 3 * torch.randn(50, 2))[1].flatten(1, -2)
    values = torch.linalg.svdvals(jacobian.double())
    assert (values[:, -1] / values[:, 0]).min() > SLOPE**2
    with pytest.raises(ConfigError, match="16 to 8"):
        orthonormal(SHAPE, 2, (16, 8))


def test_couplings_of_padded_codes_are_inverted_by_their_encoder():
    torch.manual_seed(0)
    z = torch.randn(20, 2)
    couplings, plain = (make(SHAPE, 2, (8, 16)) for make in (coupled, BEFORE["AE"]))
    torch.testing.assert_close(couplings.code(couplings.decode_mean(z)), z, atol=1e-4, rtol=0)
    assert (plain.code(plain.decode_mean(z)) - z).abs().max() > 0.1


@pytest.mark.parametrize("name", BEFORE | WAYS)
def test_every_part_of_a_first_step_is_trained(name):
    torch.manual_seed(0)
    model = (BEFORE | WAYS)[name](SHAPE, 2, (8, 16))
    model.loss(torch.randint(256, (40, *SHAPE)), generator=torch.Generator().manual_seed(0)).backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())
