"""The gradient norm against closed forms."""

import torch

from pushforward import distributions, models, transforms
from pushforward.detection.scores import InputGradientNorm
from pushforward.detection.without_preprocessing import WithoutPreprocessing


def test_gaussian_with_known_precision():
    """log p(x) = -|| A x ||^2 / 2 + c has the gradient -A^T A x."""
    draw = torch.Generator().manual_seed(0)
    layer = transforms.LULinear(3).double()
    with torch.no_grad():
        layer.packed.copy_(torch.randn(3, 3, generator=draw))
    shift = layer.encode(torch.zeros(1, 3).double()).z
    a = (layer.encode(torch.eye(3).double()).z - shift).detach().mT
    x = torch.randn(5, 3, dtype=torch.float64, generator=draw)
    expected = ((x @ a.mT + shift) @ a).norm(dim=1).detach()
    torch.testing.assert_close(InputGradientNorm(models.Flow(layer, distributions.Normal(3)))(x), expected)


def test_units_of_the_data_do_not_matter():
    """Standardization is preprocessing: the slope is per standard deviation, whatever the units."""
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0)).double()
    norms = []
    for unit in (1.0, 1000.0):
        torch.manual_seed(0)
        flow = models.NICE(2, hidden=(8,)).double()
        flow.initialize(unit * x)
        norms.append(InputGradientNorm(flow)(unit * x))
    torch.testing.assert_close(*norms)


def test_what_counts_as_preprocessing():
    def names(model: models.Model) -> list[str]:
        return [type(part).__name__ for part in WithoutPreprocessing(model).preprocessing]

    assert names(models.ImageNICE(shape=(1, 4, 4))) == ["UniformDequantize", "Affine", "Flatten", "Standardize"]
    assert names(models.Glow((1, 4, 4), scales=1)) == ["UniformDequantize", "Logit"]
    assert names(models.Flow(transforms.Affine(2, trainable=True), distributions.Normal(2))) == []
    assert names(models.VAE(3, decoder="gaussian")) == ["Standardize"]


def test_inner_and_preprocessing_add_up_to_the_likelihood():
    model = models.Glow((1, 4, 4), scales=1, layers=2, hidden=(4, 4), levels=8)
    x = torch.randint(8, (6, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    inner = WithoutPreprocessing(model)
    y, added = inner.preprocess(x)
    torch.testing.assert_close(inner(y) + added, model.evaluate(x).value)


def test_in_inference_mode_and_with_frozen_weights():
    flow = models.NICE(2, hidden=(8,)).requires_grad_(False)
    x = torch.randn(4, 2)
    expected = InputGradientNorm(flow)(x)
    with torch.inference_mode():
        assert torch.equal(InputGradientNorm(flow)(x), expected)
