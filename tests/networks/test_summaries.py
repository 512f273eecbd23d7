"""Networks that summarize images, sets and sequences."""

from __future__ import annotations

import pytest
import torch

from pushforward.errors import ConfigError, InputError
from pushforward.networks import ConvSummary, RecurrentSummary, SetSummary


def test_a_set_has_no_order():
    summary = SetSummary(rows=7, width=2, outputs=3)
    x = torch.randn(4, 7, 2)
    permuted = x[:, torch.randperm(7)]
    torch.testing.assert_close(summary(x.reshape(4, 14)), summary(permuted.reshape(4, 14)))


def test_a_sequence_has_an_order():
    summary = RecurrentSummary(steps=7, width=2, outputs=3)
    x = torch.randn(4, 7, 2)
    assert not torch.allclose(summary(x.reshape(4, 14)), summary(x.flip(1).reshape(4, 14)))


@pytest.mark.parametrize(
    "summary",
    [SetSummary(3, 2, 4), RecurrentSummary(3, 2, 4), ConvSummary((1, 2, 3), 4)],
    ids=lambda s: type(s).__name__,
)
def test_leading_dimensions_are_batch(summary):
    x = torch.randn(2, 5, 6)
    torch.testing.assert_close(summary(x)[1, 2], summary(x[1, 2]), atol=1e-5, rtol=1e-4)
    assert summary(x).shape == (2, 5, 4)


@pytest.mark.parametrize("shape", [(3,), (1, 2, 3, 4), (0, 4), "image"])
def test_shapes_that_are_not_possible_are_refused(shape):
    with pytest.raises(ConfigError, match="shape must be"):
        ConvSummary(shape, 2)


@pytest.mark.parametrize(
    "summary",
    [
        RecurrentSummary(5, 2, 3),
        ConvSummary((1, 5, 3), 3, channels=(4,)),
        ConvSummary((1, 4), 2, channels=()),
        SetSummary(5, 2, 3),
    ],
)
def test_float64_data_are_read_in_the_type_of_the_weights(summary):
    x = torch.randn(2, summary.inputs, dtype=torch.float64)
    assert torch.equal(summary(x), summary(x.float()))


@pytest.mark.parametrize(
    "summary",
    [SetSummary(3, 2, 4), RecurrentSummary(3, 2, 4), ConvSummary((1, 2, 3), 4)],
    ids=lambda s: type(s).__name__,
)
@pytest.mark.parametrize("shape", [(5, 7), (4, 3), (5, 1, 2, 3), ()], ids=str)
def test_data_of_another_width_are_refused(summary, shape):
    with pytest.raises(InputError, match=r"Summary reads flat rows, \(\*batch, 6\); got \("):
        summary(torch.zeros(shape))
