"""Temperature, interpolation and inpainting, against flows whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pushforward import distributions, models, transforms
from pushforward.errors import ConfigError, InputError
from pushforward.models.manipulation import (
    attribute_direction,
    inpaint,
    interpolate,
    manipulate,
    sample_at_temperature,
)


def gaussian(correlation: float = 0.8) -> models.Flow:
    """N(0, [[1, r], [r, 1]]) as an LU flow."""
    model = models.Flow(transforms.LULinear(2, bias=False), distributions.Normal(2)).double()
    covariance = torch.tensor([[1.0, correlation], [correlation, 1.0]], dtype=torch.float64)
    # z = L U x with U diagonal: the inverse of the covariance's Cholesky factor, row by row.
    whitening = torch.linalg.inv(torch.linalg.cholesky(covariance))
    diagonal = whitening.diagonal()
    linear = next(iter(model.chain))
    with torch.no_grad():
        linear.packed.copy_((whitening / diagonal).tril(-1))
        raw = torch.log(torch.expm1(diagonal - 1e-3)) - torch.log(
            torch.expm1(torch.tensor(1 - 1e-3, dtype=torch.float64))
        )
        linear.packed.diagonal().copy_(raw)
    return model


def image_model() -> models.Glow:
    torch.manual_seed(0)
    # Additive couplings on shifted pixels nearly keep volume, so that p(x) follows the base's density.
    model = models.Glow((1, 4, 4), layers=2, hidden=(8,), levels=16, affine=False, alpha=None).double()
    generator = torch.Generator().manual_seed(1)
    model.initialize(torch.randint(16, (100, 1, 4, 4), generator=generator))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model.eval()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_temperature_scales_a_gaussian(temperature):
    x = sample_at_temperature(gaussian(), 40_000, temperature, seed=1)
    expected = temperature**2 * torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(x.T.cov(), expected, rtol=0.05, atol=0.02)
    assert torch.equal(x, sample_at_temperature(gaussian(), 40_000, temperature, seed=1))


def test_temperature_reaches_every_scale_and_lower_is_likelier():
    model = image_model()
    assert torch.equal(sample_at_temperature(model, 5, 1.0, seed=3), model.sample(5, seed=3))
    cold = sample_at_temperature(model, 5, 0.0, seed=3)
    assert torch.equal(cold, cold[:1].expand_as(cold))
    means = [model.evaluate(sample_at_temperature(model, 200, t, seed=4)).value.mean() for t in (1.0, 0.7, 0.3)]
    assert means[0] < means[1] < means[2]


def test_temperature_with_contexts_and_what_it_refuses():
    model = models.NICE(2, context=3, hidden=(8,))
    assert sample_at_temperature(model, 4, 0.7, torch.zeros(5, 3)).shape == (4, 5, 2)
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="temperature"):
            sample_at_temperature(gaussian(), 2, wrong)
    base = models.Flow(transforms.Affine(2), distributions.ConditionalNormal(2, 3))
    with pytest.raises(ConfigError, match="center"):
        sample_at_temperature(base, 2, 0.5, torch.zeros(3))
    with pytest.raises(InputError, match="torch tensor"):
        sample_at_temperature(model, 2, 0.5, [[0.0] * 3])


def test_interpolation_of_a_linear_flow_is_a_line_or_an_ellipse():
    model, a, b = gaussian(), torch.tensor([1.0, 2.0]).double(), torch.tensor([-3.0, 0.5]).double()
    part = torch.linspace(0, 1, 5).double()[:, None]
    torch.testing.assert_close(interpolate(model, a, b, 5), (1 - part) * a + part * b)
    angle = part * torch.pi / 2
    torch.testing.assert_close(interpolate(model, a, b, 5, spherical=True), angle.cos() * a + angle.sin() * b)


@pytest.mark.parametrize("spherical", [False, True])
def test_interpolation_of_images_ends_at_both_images(spherical):
    model = image_model()
    a, b = torch.randint(16, (2, 3, 1, 4, 4), generator=torch.Generator().manual_seed(2))
    way = interpolate(model, a, b, 6, spherical=spherical)
    assert way.shape == (6, 3, 1, 4, 4)
    assert torch.equal(way[0], a.double())
    assert torch.equal(way[-1], b.double())
    with pytest.raises(ConfigError, match="steps must be an integer of at least 2"):
        interpolate(model, a, b, 1)


def test_inpainting_finds_the_conditional_mode():
    """Of a Gaussian, E[x_1 | x_0] = 0.8 x_0; without noise the ascent converges to it."""
    x = torch.tensor([[1.5, 9.0], [-1.0, 9.0]]).double()
    known = torch.tensor([True, False])
    filled = inpaint(gaussian(), x, known, noise=0.0)
    assert torch.equal(filled[:, 0], x[:, 0])
    torch.testing.assert_close(filled[:, 1], 0.8 * x[:, 0], rtol=1e-5, atol=1e-5)
    assert torch.equal(inpaint(gaussian(), x, known, seed=2), inpaint(gaussian(), x, known, seed=2))
    assert not torch.equal(inpaint(gaussian(), x, known, seed=2), inpaint(gaussian(), x, known, seed=3))


def test_a_bounded_gradient_converges_where_the_plain_one_overshoots():
    """Of a density a thousand times narrower than the first step, whose mode is at 0.7."""
    narrow = models.Flow(transforms.Affine(2, shift=-700.0, scale=1000.0), distributions.Normal(2)).double()
    x, known = torch.tensor([[0.7, 0.0]]).double(), torch.tensor([True, False])
    wild = inpaint(narrow, x, known, noise=0.0)
    assert not (wild[:, 1] - 0.7).abs() < 1.0
    tame = inpaint(narrow, x, known, steps=2000, rate=1.0, noise=0.0, max_gradient=1.0)
    step = 1.0 / (100 + 1999)  # the last one: it can be off by no more
    assert (tame[:, 1] - 0.7).abs() <= step


def test_inpainting_works_in_inference_mode():
    torch.manual_seed(0)
    model = models.MAF(2, context=1, hidden=(8,))
    x, known, context = torch.randn(3, 2), torch.tensor([True, False]), torch.randn(3, 1)
    outside = inpaint(model, x, known, 20, context)
    with torch.inference_mode():
        inside = inpaint(model, x + 0.0, known & True, 20, context + 0.0)
    assert torch.equal(inside, outside)


def test_inpainting_of_images_keeps_observed_pixels_and_raises_the_likelihood():
    model = image_model()
    x = torch.randint(16, (8, 1, 4, 4), generator=torch.Generator().manual_seed(5))
    known = torch.ones(4, 4, dtype=torch.bool)
    known[2:] = False
    start, end = (inpaint(model, x, known, steps, rate=0.1, noise=0.0) for steps in (0, 100))
    for filled in (start, end):
        assert torch.equal(filled[:, :, :2], x[:, :, :2].double())
        assert torch.equal(filled, filled.round().clamp(0, 15))
    gain = (model.evaluate(end).value - model.evaluate(start).value).detach()
    assert gain.mean() > 1.0
    assert (gain > 0).double().mean() > 0.8


def test_inpainting_refuses_what_does_not_fit():
    model, x = gaussian(), torch.zeros(3, 2)
    with pytest.raises(InputError, match="boolean"):
        inpaint(model, x, torch.ones(2))
    with pytest.raises(InputError, match="does not broadcast"):
        inpaint(model, x, torch.ones(3, dtype=torch.bool))
    with pytest.raises(InputError, match="shape"):
        inpaint(model, torch.zeros(3, 5), torch.ones(2, dtype=torch.bool))
    with pytest.raises(ConfigError, match="steps"):
        inpaint(model, x, torch.ones(2, dtype=torch.bool), -1)
    with pytest.raises(ConfigError, match="max_gradient"):
        inpaint(model, x, torch.ones(2, dtype=torch.bool), max_gradient=0.0)


def test_the_direction_of_an_attribute_is_the_difference_of_means():
    """For a linear flow x -> A x: A (mean with - mean without), whatever the batches and the labels' type."""
    model = gaussian()
    x = torch.randn(101, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = x[:, 0] + 0.3 * x[:, 1] > 0
    z = model.encode(x)
    expected = z[labels].mean(0) - z[~labels].mean(0)
    for given, batch in ((labels, 250), (labels.long(), 7), (labels.float(), 1)):
        torch.testing.assert_close(attribute_direction(model, x, given, batch_size=batch), expected)
    torch.testing.assert_close(attribute_direction(model, x, ~labels), -expected)


def test_moving_along_the_direction_changes_the_mean_to_that_with_the_attribute():
    model = image_model()
    generator = torch.Generator().manual_seed(5)
    dark, light = (torch.randint(low, low + 8, (60, 1, 4, 4), generator=generator) for low in (0, 8))
    x, labels = torch.cat((dark, light)), torch.arange(120) >= 60
    direction = attribute_direction(model, x, labels, seed=1)
    assert direction.shape == model.base.shape
    moved = manipulate(model, dark, direction, (0.0, 1.0, 2.0), seed=1)
    assert moved.shape == (3, 60, 1, 4, 4)
    assert torch.equal(moved[0], dark.double())
    means = moved.mean((1, 2, 3, 4))
    assert means[0] < 4.5
    assert means[0] + 3 < means[1] < means[2]
    mean = (model.encode(dark, seed=1) + direction).mean(0)
    torch.testing.assert_close(mean, model.encode(light, seed=1).mean(0))


def test_attributes_with_a_context_and_what_is_refused():
    model = models.NICE(2, context=3, hidden=(8,))
    x, c, labels = torch.randn(10, 2), torch.randn(10, 3), torch.arange(10) % 2
    direction = attribute_direction(model, x, labels, c, batch_size=3)
    assert manipulate(model, x, direction, (1.0,), c).shape == (1, 10, 2)
    for wrong in (labels[:9], labels + 1, labels.float() / 2, labels[:, None], [0, 1] * 5):
        with pytest.raises(InputError, match="0 or 1 for each row"):
            attribute_direction(model, x, wrong, c)
    with pytest.raises(InputError, match="0 or 1 for each row"):
        attribute_direction(model, x[0], labels[:2], c[0])
    for one in (torch.zeros(10), torch.ones(10)):
        with pytest.raises(InputError, match="with the attribute"):
            attribute_direction(model, x, one, c)
    with pytest.raises(InputError, match="shape"):
        manipulate(model, x, direction[:1], (1.0,), c)
    with pytest.raises(InputError, match="shape"):
        manipulate(model, x, direction.expand(10, 2), (1.0,), c)
    with pytest.raises(ConfigError, match="finite"):
        manipulate(model, x, direction, (float("nan"),), c)
    expected = attribute_direction(model, x, labels, c[:1].expand(10, 3))
    assert torch.equal(attribute_direction(model, x, labels, c[0]), expected)
    for wrong in (c[:9], c.tolist()):
        with pytest.raises(InputError, match="context"):
            attribute_direction(model, x, labels, wrong)
    moved = manipulate(model, x, direction, (np.float32(0.5),), c)
    assert torch.equal(moved, manipulate(model, x, direction, (0.5,), c))


def test_a_distribution_of_pixels_has_no_latents() -> None:
    model = models.PixelCNN((1, 4, 4), filters=4, layers=1)
    x, known = torch.zeros(2, 1, 4, 4), torch.ones(1, 4, 4, dtype=torch.bool)
    for call in (
        lambda: interpolate(model, x[:1], x[1:]),
        lambda: sample_at_temperature(model, 2, 0.5),
        lambda: attribute_direction(model, x, torch.tensor([0, 1])),
        lambda: manipulate(model, x, x[0]),
        lambda: inpaint(model, x, known),
    ):
        with pytest.raises(ConfigError, match=r"PixelCNN has no latents: .* Use a flow, such as Glow"):
            call()


def test_a_start_of_fewer_batch_dimensions_is_broadcast():
    model = models.Flow(transforms.Affine(2, shift=-3.0), distributions.Normal(2))
    ends = torch.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])
    path = interpolate(model, torch.zeros(2), ends, steps=3)
    torch.testing.assert_close(path, torch.stack([0 * ends, ends / 2, ends]))
    with pytest.raises(InputError, match="of one shape"):
        interpolate(model, torch.zeros(2, 2), ends)
