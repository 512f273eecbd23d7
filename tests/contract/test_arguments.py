"""Arguments that are not possible end in one sentence, in every model, transform, distribution and score that takes them."""

# pyright: reportArgumentType=false
from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch

import pushforward as pf
from pushforward import distributions, models, transforms
from pushforward.detection import scores
from pushforward.detection.curvature import graying
from pushforward.errors import ConfigError, InputError
from pushforward.models.manipulation import manipulate, sample_at_temperature

IMAGE, VECTOR = (4, 8, 8), 4
OF_IMAGES = ("Image", "Conv", "InvertibleConv", "MaxPool", "VariationalDequantize")


def _required(cls: type) -> set[str]:
    parameters = inspect.signature(cls).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {p.name for p in parameters if p.default is p.empty and p.kind in kinds}


def _small(cls: type, **options: Any) -> Any:
    """An instance for vectors, else for images."""
    required = _required(cls)
    size = IMAGE if "shape" in required or cls.__name__.startswith(OF_IMAGES) else VECTOR
    return cls(**{name: 4 if name == "latent" else size for name in required} | options)


def _with(package: Any, argument: str) -> list[type]:
    """The classes with this argument that need a width and a number of codes at most."""
    found = [c for c in (getattr(package, name) for name in package.__all__) if isinstance(c, type)]
    return [
        c
        for c in found
        if argument in inspect.signature(c).parameters and _required(c) <= {"features", "shape", "latent"}
    ]


@pytest.mark.parametrize("cls", _with(models, "hidden") + _with(transforms, "hidden"), ids=lambda c: c.__name__)
def test_a_width_that_is_no_tuple_is_refused(cls: type):
    with pytest.raises(ConfigError, match=r"hidden must be .*got 64"):
        _small(cls, hidden=64)


@pytest.mark.parametrize(
    "cls",
    [c for p in (models, transforms, distributions) for c in _with(p, "seed")],
    ids=lambda c: c.__name__,
)
@pytest.mark.parametrize("seed", ["a", 2.5, [3]])
def test_a_seed_is_an_integer(cls: type, seed: Any):
    with pytest.raises(ConfigError, match="seed must be an integer"):
        _small(cls, seed=seed)


@pytest.mark.parametrize("name", ["MAF", "IAF", "NAF", "SOS", "UMNN", "BNAF", "BernsteinFlow", "GaussianizationFlow"])
def test_a_list_is_no_width_of_an_autoregressive_flow(name: str):
    with pytest.raises(ConfigError, match=r"features must be .*got \[2\]"):
        getattr(models, name)(features=[2])


@pytest.mark.parametrize(
    "make",
    [
        lambda: transforms.Coupling((4,)),
        lambda: transforms.MaskedAutoregressive((4,)),
        lambda: transforms.Gaussianize((4,)),
        lambda: transforms.Monotone((4,)),
        lambda: transforms.Funnel((4,)),
    ],
)
def test_the_shape_of_a_vector_is_a_width(make: Callable[[], Any]):
    assert make().in_shape == (4,)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: transforms.Coupling(4, mask=3), "mask must be"),
        (lambda: transforms.Coupling(4, mask=(0, 0)), "mask must contain distinct"),
        (lambda: transforms.MaskedAutoregressive(4, order=-1), "order must be None"),
        (lambda: transforms.MaskedAutoregressive(4, order=(0, 1)), "order must contain each of 0, ..., 3"),
        (lambda: transforms.Permutation(4, order=-1), "order must contain distinct"),
        (lambda: transforms.Inversion(4, center="a"), "center must be a number"),
        (lambda: distributions.VonMisesFisher(mean=3), "three finite numbers"),
        (lambda: models.AEF(IMAGE, 4, core=3), "core must"),
        (lambda: models.VAE(4, posterior_hidden=64), "posterior_hidden must be"),
        (lambda: models.VAE(4, posterior_layers=-1), "posterior_layers must be"),
        (lambda: models.PixelCNN(IMAGE, scales=-1), "scales must be"),
        (lambda: models.CyGen(4, latent="a"), "latent must be"),
        (lambda: models.RectangularFlow(4, 2, scales="a"), "scales must be"),
        (lambda: models.FunnelFlow(4, decoder_layers=-1), "decoder_layers must be"),
        (lambda: models.ImageIResNet(IMAGE, dense=64), "dense must be"),
    ],
)
def test_other_impossible_arguments(make: Callable[[], Any], words: str):
    with pytest.raises(ConfigError, match=words):
        make()


@pytest.mark.parametrize(
    "name",
    [
        "FisherScore", "InputGradientNorm", "LayerGradients", "Likelihood", "LocalDimension", "ManifoldDistance",
        "ManifoldLikelihood", "ParameterGradients", "DualThreshold", "ScoreTypicality", "Typicality",
    ],
)  # fmt: skip
def test_a_score_of_a_model_refuses_anything_else(name: str):
    with pytest.raises(ConfigError, match=f"{name} needs a model of pushforward; got Linear"):
        getattr(scores, name)(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("name", ["Likelihood", "Typicality", "LikelihoodPath"])
def test_the_number_of_draws_is_positive(name: str):
    with pytest.raises(ConfigError, match="samples must be an integer of at least 1"):
        getattr(scores, name)(models.NICE(2), samples=0)


def test_graying_refuses_what_the_integers_cannot_hold():
    x = torch.zeros(2, 3, dtype=torch.uint8)
    with pytest.raises(InputError, match="gray must lie in the range"):
        graying(x, 0.5, 300.0)
    with pytest.raises(InputError, match="gray must be a number or broadcast"):
        graying(x, 0.5, torch.zeros(5))
    with pytest.raises(InputError, match="integers or real numbers"):
        graying(x.bool(), 0.5, 0.0)
    with pytest.raises(ConfigError, match="amount must be a number"):
        graying(x, 1.5, 0.0)


@pytest.mark.parametrize("device", ["meta", "mps"])
def test_a_device_that_cannot_train_is_refused(device: str):
    with pytest.raises(ConfigError, match=f"device='{device}'"):
        pf.fit(models.NICE(2), torch.randn(100, 2), device=device)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: models.AutoEncoder(4, 2).code(torch.zeros(3, 5)), "AutoEncoder"),
        (lambda: models.AutoEncoder(4, 2).decode_mean(torch.zeros(3, 5)), "decoder of AutoEncoder"),
        (lambda: models.AEF(4, 2).decode_mean(torch.zeros(3, 5)), "decoder of AEF"),
        (lambda: pf.plot.density(distributions.Normal(2)), "as a model"),
        (lambda: pf.plot.samples(torch.zeros(3, 2), names=("a",)), "names must be 2"),
        (lambda: pf.plot.samples(torch.zeros(3, 2), names="ab"), "names must be 2"),
    ],
)
def test_codes_and_data_of_another_shape(call: Callable[[], Any], words: str):
    with pytest.raises(InputError, match=words):
        call()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: pf.plot.samples(x, size=-1), "size must be positive"),
        (lambda x: pf.plot.scores(x[:, 0], bins=0), "bins must be"),
        (lambda x: pf.plot.scores(x[:, 0], threshold=float("nan")), "threshold must be"),
        (lambda x: pf.plot.p_values([0.1, 0.2], calibration=-1), "calibration must be"),
        (lambda x: pf.plot.heat_map([[1.0]], ["a"], ["b"], limits=(0,)), "limits must be two numbers"),
        (lambda x: sample_at_temperature(models.NICE(2), 0, 1.0), "count must be"),
        (lambda x: sample_at_temperature(models.NICE(2), 1, 1.0, seed="a"), "seed must be"),
        (lambda x: manipulate(models.NICE(2), x, torch.zeros(2), ("a",)), "amounts must be"),
        (lambda x: transforms.AugmentMissing(4, columns=(0.5,), indicators=(1,)), "columns must contain distinct"),
        (lambda x: transforms.AugmentMissing(4, columns=3, indicators=(1,)), "columns must contain distinct"),
        (lambda x: transforms.AugmentMissing(4, columns=(0,), indicators=(1,), steps=0.0), "steps must be positive"),
        (
            lambda x: transforms.AugmentMissing(4, columns=(0,), indicators=(1,), steps=(1.0, 2.0)),
            "steps must be a number",
        ),
    ],
)
def test_options_of_pictures_and_latents(call: Callable[[Any], Any], words: str):
    with pytest.raises(ConfigError, match=words):
        call(torch.zeros(3, 2))
