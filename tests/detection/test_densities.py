"""Densities of statistics."""

import math

import pytest
import torch

from pushforward.detection.scores.densities import kde, log_gaussians, log_kde


def mixture(components: int, width: int):
    generator = torch.Generator().manual_seed(components * width)
    draw = lambda *shape: torch.randn(*shape, dtype=torch.float64, generator=generator)  # noqa: E731
    return (
        draw(256, width),
        torch.log_softmax(draw(components), 0),
        draw(components, width),
        draw(components, width, width),
    )


@pytest.mark.parametrize(("components", "width"), [(1, 2), (3, 5), (16, 13)])
def test_the_density_of_a_row_does_not_depend_on_other_rows(components, width):
    rows, *parts = mixture(components, width)
    expected = log_gaussians(rows, *parts)
    for shift in (1, 3, 50, 101):
        assert torch.equal(log_gaussians(rows.roll(shift, 0), *parts).roll(-shift), expected)


def test_against_torch():
    rows, weights, means, whitenings = mixture(3, 4)
    covariances = torch.linalg.inv(whitenings @ whitenings.mT)
    normals = torch.distributions.MultivariateNormal(means, covariances)
    mixed = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(logits=weights), normals)
    torch.testing.assert_close(
        log_gaussians(rows, weights, means, whitenings), mixed.log_prob(rows), rtol=1e-6, atol=1e-6
    )
    assert math.isclose(log_gaussians(means[:1], weights[:1] * 0, means[:1], whitenings[:1]).item(),
                        normals.log_prob(means)[0].item(), rel_tol=1e-9)  # fmt: skip


def test_a_graph_of_kernel_densities_takes_any_number_of_rows():
    class Kernels(torch.nn.Module):
        def forward(self, rows, points, bandwidths):
            return log_kde(rows, points, bandwidths)

    rows = mixture(1, 3)[0]
    parts = kde(rows)
    sizes = ({0: torch.export.Dim("n")}, None, None)
    program = torch.export.export(Kernels(), (rows[:8], *parts), dynamic_shapes=sizes)
    torch.testing.assert_close(program.module()(rows[:5], *parts), log_kde(rows[:5], *parts))
