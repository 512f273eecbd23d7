"""Image models: kinds and bits, masses, log-determinants, order of the latents, pixels of every sort, and a smoke training."""

from __future__ import annotations

import gzip
import itertools
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

import pushforward as pf
from pushforward import distributions, transforms
from pushforward.data.samples import load_image_sample
from pushforward.errors import ConfigError, InputError, KindError
from pushforward.likelihood import Counting, Kind
from pushforward.models import (
    VAE,
    ConvGlow,
    Flow,
    FlowPlusPlus,
    Glow,
    ImageIResNet,
    ImageNICE,
    ImageNSF,
    ImageRealNVP,
    ImageResidualFlow,
    Model,
    PixelCNN,
    TarFlow,
)  # fmt: skip

TINY = {
    "nice": lambda shape, **more: ImageNICE(shape=shape, hidden=(8,), **more),
    "realnvp": lambda shape, **more: ImageRealNVP(shape=shape, layers=2, scales=1, hidden=(6,), **more),
    "realnvp, 2 scales": lambda shape, **more: ImageRealNVP(shape=shape, layers=3, scales=2, hidden=(6,), **more),
    "nsf": lambda shape, **more: ImageNSF(shape=shape, layers=2, bins=4, hidden=(6,), scales=1, **more),
    "glow": lambda shape, **more: Glow(shape, scales=1, layers=2, hidden=(6,), **more),
    "glow, shuffle": lambda shape, **more: Glow(shape, scales=1, layers=2, hidden=(6,), linear="shuffle", **more),
    "causal": lambda shape, **more: ConvGlow(shape, scales=1, layers=2, hidden=(6,), kernel_size=2, **more),
    "periodic": lambda shape, **more: ConvGlow(shape, scales=1, layers=1, hidden=(6,), mode="periodic", **more),
    "realnvp, normalized": lambda shape, **more: ImageRealNVP(
        shape=shape, layers=2, scales=1, hidden=(6,), normalize=True, **more
    ),
    "flow++": lambda shape, **more: FlowPlusPlus(
        shape, layers=(1, 1, 1), components=2, hidden=(4,), **{"dequantize": "uniform", "alpha": 0.0, **more}
    ),
    "iresnet": lambda shape, **more: ImageIResNet(
        shape=shape, blocks=2, scales=1, hidden=(6,), **{"log_det": "exact", "alpha": 0.0, **more}
    ),
    "residual flow, 2 scales": lambda shape, **more: ImageResidualFlow(
        shape=shape, blocks=1, factor_out=True, hidden=(6,), **{"log_det": "exact", "alpha": 0.0, **more}
    ),
}
EVEN = {
    "realnvp, 2 scales", "nsf", "glow", "glow, shuffle", "causal", "periodic", "flow++", "residual flow, 2 scales"
}  # fmt: skip


def moved(model: Model, size: float = 0.1, levels: int = 256) -> Model:
    """In float64, initialized from random images, with every parameter off its start."""
    generator = torch.Generator().manual_seed(0)
    model.double().initialize(torch.randint(levels, (200, *model.shape), generator=generator))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model.eval()


def images(shape, count: int = 5, levels: int = 256) -> torch.Tensor:
    return torch.randint(levels, (count, *shape), generator=torch.Generator().manual_seed(3))


def forward(model: Model, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise and log-determinant from dequantized pixels."""
    total = torch.zeros(y.shape[:-3], dtype=y.dtype)
    for part in list(model.chain)[1:]:
        step = part.encode(y)
        y, total = step.z, total + step.contribution
    return y, total


def backward(model: Model, z: torch.Tensor) -> torch.Tensor:
    """Dequantized pixels from noise."""
    for part in reversed(list(model.chain)[1:]):
        z = part.decode(z)
    return z


@pytest.mark.parametrize("name", TINY)
def test_log_determinant_against_autograd(name):
    """All that comes after the dequantization, against the dense Jacobian."""
    torch.manual_seed(0)
    model = moved(TINY[name]((1, 4, 2)))
    y = next(iter(model.chain)).encode(images((1, 4, 2)).double()).z
    z, contribution = forward(model, y)
    for row, value in zip(y, contribution, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda one: forward(model, one)[0], row).reshape(8, 8)
        assert value.item() == pytest.approx(torch.linalg.slogdet(jacobian)[1].item(), abs=1e-9)
    torch.testing.assert_close(backward(model, z), y, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dequantize", ["uniform", "variational"])
@pytest.mark.parametrize("build", [Glow, ConvGlow], ids=lambda cls: cls.__name__)
def test_two_scales_of_a_larger_image(build, dequantize):
    torch.manual_seed(0)
    model = moved(build((2, 8, 8), scales=2, layers=2, hidden=(6, 6), levels=32, dequantize=dequantize), levels=32)
    x = images((2, 8, 8), levels=32)
    assert torch.equal(model.decode(model.encode(x)), x.double())
    y = torch.rand(2, 2, 8, 8, dtype=torch.float64)
    for row, value in zip(y, forward(model, y)[1], strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda one: forward(model, one)[0], row).reshape(128, 128)
        assert value.item() == pytest.approx(torch.linalg.slogdet(jacobian)[1].item(), abs=1e-9)


@pytest.mark.parametrize("name", TINY)
def test_kind_and_bits(name):
    model = moved(TINY[name]((1, 2, 4), levels=16), levels=16)
    result = model.evaluate(images((1, 2, 4), levels=16))
    assert (result.kind, result.measure) == (Kind.LOWER_BOUND, Counting(8))
    torch.testing.assert_close(result.bits_per_dim(), -result.value / (8 * math.log(2)))
    terms = next(value for key, value in result.terms.items() if "Dequantize" in key)
    torch.testing.assert_close(terms, torch.full((5,), -8 * math.log(16)).double())
    with pytest.raises(KindError, match="evaluate"):
        model.log_prob(images((1, 2, 4)))


@pytest.mark.parametrize("levels", [2, 32, 256])
def test_a_uniform_density_costs_exactly_the_levels(levels):
    first, *_ = ImageRealNVP(shape=(1, 2, 2), levels=levels, scales=1, hidden=(4,)).chain
    model = Flow(transforms.Chain(first, transforms.Flatten((1, 2, 2))), distributions.Uniform(4))
    bits = model.evaluate(images((1, 2, 2), levels=levels)).bits_per_dim()
    torch.testing.assert_close(bits, torch.full((5,), math.log2(levels)))


@pytest.mark.parametrize(
    ("name", "alpha", "dequantize"),
    [
        *(("realnvp", alpha, dequantize) for alpha in (None, 0.0, 0.05) for dequantize in ("uniform", "variational")),
        ("nice", None, "variational"),
        ("nice", 0.0, "uniform"),
        ("nsf", 0.0, "uniform"),
        ("glow", 0.0, "variational"),
        ("realnvp, 2 scales", 0.05, "uniform"),
        ("causal", None, "uniform"),
        ("iresnet", 0.0, "uniform"),
        ("residual flow, 2 scales", 0.05, "uniform"),
        ("flow++", 0.05, "variational"),
    ],
)
def test_the_probabilities_of_all_images_sum_to_at_most_one(name, alpha, dequantize):
    """Four levels; two pixels, or 2 x 2 where sides must be even. With alpha = 0 the mean weight has mass exactly 1."""
    torch.manual_seed(1)
    shape = (1, 2, 2) if name in EVEN else (1, 1, 2)
    model = moved(TINY[name](shape, levels=4, alpha=alpha, dequantize=dequantize), 0.03, levels=4)
    x = torch.tensor(list(itertools.product(range(4), repeat=math.prod(shape)))).reshape(-1, *shape)
    draws = 100 if name in EVEN else 3000
    with torch.no_grad():
        many = x.double().expand(draws, *x.shape)
        step = model.chain.encode(many, noise=torch.Generator().manual_seed(2))
        values = step.contribution + model.base.log_prob(step.z)
    assert values.mean(0).exp().sum() < 1  # Jensen
    weights = values.exp()
    mass, error = weights.mean(0).sum(), (weights.var(0) / draws).sum().sqrt()
    assert mass < 1 + 4 * error
    assert error < 0.05
    if alpha == 0.0:
        assert abs(mass - 1) < 4 * error


@pytest.mark.parametrize("name", TINY)
def test_images_of_every_sort(name):
    model = TINY[name]((2, 4, 4)).float()
    model.initialize(images((2, 4, 4), 100))
    model.eval()
    for fill in (0, 255):
        x = torch.full((3, 2, 4, 4), fill, dtype=torch.uint8)
        assert torch.isfinite(model.evaluate(x).value).all()
        assert torch.equal(model.decode(model.encode(x)), x.float())
    x = images((2, 4, 4))
    expected = model.evaluate(x.to(torch.uint8)).value
    for other in (x, x.to(torch.int16), x.to(torch.int32), x.double(), x.to(torch.float16)):
        assert torch.equal(model.evaluate(other).value, expected)
    # No gray level of the model: an image of probability zero, beside others that keep theirs.
    for wrong in (0.5, -1.0, 256.0, 1e20, math.inf):
        mixed = x.float().clone()
        mixed[1, 0, 0, 0] = wrong
        got = model.evaluate(mixed).value
        assert got[1] == -math.inf
        assert torch.equal(got[[0, 2, 3, 4]], expected[[0, 2, 3, 4]])
    assert (model.evaluate(x / 255.0).value == -math.inf).all()
    for shape in ((3, 4, 4), (2, 4, 5), (4, 4), (2, 3, 3)):
        with pytest.raises(InputError, match=r"shape \(\*batch, 2, 4, 4\)"):
            model.evaluate(torch.zeros(5, *shape))
    assert model.evaluate(x[0]).value.shape == ()
    assert model.evaluate(x[:0]).value.shape == (0,)
    samples = model.sample(10, seed=0)
    assert samples.shape == (10, 2, 4, 4)
    assert torch.equal(samples, samples.round().clamp(0, 255))


@pytest.mark.parametrize("name", TINY)
def test_sixteen_bits(name):
    model = TINY[name]((1, 2, 2), levels=65536)
    x = images((1, 2, 2), 40, 65536)
    x[0], x[1] = 0, 65535
    model.initialize(x)
    model.eval()
    expected = model.evaluate(x).value
    assert torch.isfinite(expected).all()
    assert torch.equal(model.evaluate(x.to(torch.uint16)).value, expected)
    precise = model.double()
    assert torch.equal(precise.decode(precise.encode(x)), x.double())


OTHERS = {
    "pixelcnn": lambda shape, levels=256: PixelCNN(shape, levels, filters=2 * shape[0], layers=1, first_kernel_size=3),
    "pixelcnn, logistic": lambda shape, levels=256: PixelCNN(
        shape, levels, output="logistic", components=2, filters=4, layers=1, first_kernel_size=3
    ),
    "vae": lambda shape, levels=256: VAE(shape, 2, levels=levels, hidden=(4,)),
    "vae, convolutions": lambda shape, levels=256: VAE(shape, 2, levels=levels, channels=(4,), decoder="categorical"),
    "tarflow": lambda shape, levels=256: TarFlow(shape, 1, levels, blocks=1, width=4, layers=1, heads=1),
}


@pytest.mark.parametrize("name", OTHERS)
def test_images_of_every_sort_in_other_models_than_coupling_flows(name):
    """A finite value where the model has a word for the image, -inf where it has none, and a sentence for other shapes."""
    model = OTHERS[name]((2, 3, 5))
    model.initialize(images((2, 3, 5), 50))
    model.eval()
    with torch.no_grad():
        for fill in (0, 255):
            assert torch.isfinite(model.evaluate(torch.full((3, 2, 3, 5), fill, dtype=torch.uint8)).value).all()
        x = images((2, 3, 5))
        expected = model.evaluate(x.to(torch.uint8)).value
        assert torch.isfinite(expected).all()
        for other in (x, x.to(torch.int16), x.to(torch.int32), x.double(), x.to(torch.float16)):
            assert torch.equal(model.evaluate(other).value, expected)
        for wrong in (0.5, -1.0, 256.0, 1e20, math.inf):
            mixed = x.float().clone()
            mixed[1, 0, 0, 0] = wrong
            got = model.evaluate(mixed).value
            assert got[1] == -math.inf
            torch.testing.assert_close(got[[0, 2, 3, 4]], expected[[0, 2, 3, 4]])
        assert (model.evaluate(x / 255.0).value == -math.inf).all()
        for shape in ((3, 3, 5), (2, 3, 4), (3, 5), (1, 3, 5)):
            with pytest.raises(InputError, match=r"shape \(\*batch, 2, 3, 5\)"):
                model.evaluate(torch.zeros(5, *shape))
        assert model.evaluate(x[0]).value.shape == ()
        assert model.evaluate(x[:0]).value.shape == (0,)
        samples = model.sample(4, seed=0)
    assert samples.shape == (4, 2, 3, 5)
    assert torch.equal(samples, samples.round().clamp(0, 255))


@pytest.mark.parametrize("name", OTHERS)
def test_one_pixel_and_sixteen_bits_in_other_models_than_coupling_flows(name):
    levels = 256 if name in ("pixelcnn", "vae, convolutions") else 65536  # a softmax over 65,536 values is for nobody
    model = OTHERS[name]((1, 1, 1), levels).eval()
    x = images((1, 1, 1), 20, levels)
    x[0], x[1] = 0, levels - 1
    with torch.no_grad():
        value = model.evaluate(x).value
        assert torch.isfinite(value).all()
        if levels == 65536:
            assert torch.equal(model.evaluate(x.to(torch.uint16)).value, value)
        drawn = model.sample(50, seed=1)
    assert torch.equal(drawn, drawn.round().clamp(0, levels - 1))


CONDITIONAL = {
    "NICE": lambda shape, c: ImageNICE(shape=shape, context=c, hidden=(4,), layers=2),
    "RealNVP": lambda shape, c: ImageRealNVP(shape=shape, context=c, layers=2, scales=1, hidden=(4,)),
    "NSF": lambda shape, c: ImageNSF(shape=shape, context=c, layers=1, bins=3, hidden=(4,), scales=1),
    "Glow": lambda shape, c: Glow(shape, c, scales=1, layers=1, hidden=(4,)),
    "ConvGlow": lambda shape, c: ConvGlow(shape, c, scales=1, layers=1, hidden=(4,)),
    "FlowPlusPlus": lambda shape, c: FlowPlusPlus(shape, c, layers=(1, 1, 0), components=2, hidden=(4,)),
    "IResNet": lambda shape, c: ImageIResNet(shape=shape, context=c, scales=1, blocks=1, hidden=(4,), log_det="exact"),
    "ResidualFlow": lambda shape, c: ImageResidualFlow(shape=shape, context=c, scales=1, blocks=1, hidden=(4,)),
    "PixelCNN": lambda shape, c: PixelCNN(shape, context=c, filters=4, layers=1, first_kernel_size=3),
    "VAE": lambda shape, c: VAE(shape, 2, c, hidden=(4,)),
    "TarFlow": lambda shape, c: TarFlow(shape, 1, 256, c, blocks=1, width=4, layers=1, heads=1),
}


@pytest.mark.parametrize("name", CONDITIONAL)
def test_every_image_model_takes_a_class_as_context(name):
    """One-hot classes as a context: read by evaluate, sample and fit; missing, it is asked for."""
    torch.manual_seed(0)
    model, x = CONDITIONAL[name]((1, 2, 4), 3), images((1, 2, 4), 60)
    classes = torch.nn.functional.one_hot(torch.arange(60) % 3, 3)
    pf.fit(
        model, x, context=classes, max_steps=2, batch_size=30, validation=None, learning_rate=1e-2, progress="silent"
    )
    with torch.no_grad():
        own, other = (model.evaluate(x, c.float()).value for c in (classes, classes.roll(1, 1)))
        assert own.shape == (60,)
        assert (own != other).all()
        assert model.sample(2, torch.eye(3), seed=0).shape == (2, 3, 1, 2, 4)
    with pytest.raises(InputError, match="context"):
        model.evaluate(x)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 3, 3), (2, 5, 1), (1, 3, 4)])
def test_small_and_odd_images(shape):
    """Checkerboards and vectors take any image; a squeeze says that it cannot."""
    for name in TINY:
        if name in EVEN:
            with pytest.raises(ConfigError, match=r"even|halve"):
                TINY[name](shape)
            continue
        model = moved(TINY[name](shape))
        x = images(shape)
        assert torch.isfinite(model.evaluate(x).value).all()
        assert torch.equal(model.decode(model.encode(x)), x.double())


def test_too_many_scales_are_refused_with_how_many_fit():
    for build in (Glow, ConvGlow, lambda shape, scales: ImageNSF(shape=shape, scales=scales)):
        with pytest.raises(ConfigError, match="even"):
            build((1, 28, 28), scales=3)
        with pytest.raises(ConfigError, match="at most 2"):
            build((1, 28, 28), scales=4)
    with pytest.raises(ConfigError, match="at most 2"):
        ImageRealNVP(shape=(1, 28, 28), scales=4)
    assert ImageRealNVP(shape=(1, 28, 28), layers=1, scales=3, hidden=(2,)).base.shape == (784,)


FORMS = ["FunnelFlow", "IResNet", "InFlow", "NICE", "NSF", "RealNVP", "ResidualFlow"]


@pytest.mark.parametrize("name", FORMS)
def test_vectors_and_images_have_a_class_each(name):
    """A paper on vectors and images has a class for each; both take what they model as the first argument."""
    vector, image = getattr(pf.models, name), getattr(pf.models, "Image" + name)
    assert vector(4).shape == vector(features=4).shape == (4,)
    assert vector(4).features == 4
    model = image((1, 4, 4))
    assert (model.shape, image(shape=(1, 4, 4)).shape) == ((1, 4, 4), (1, 4, 4))
    assert model.base.shape == ((8,) if name == "FunnelFlow" else (16,))
    for wrong in (None, 4, (4,), (4, 4), (0, 4, 4)):
        with pytest.raises(ConfigError):
            image(wrong)
    with pytest.raises(ConfigError, match="Image" + name):
        image((4,))
    for wrong in (None, 0, 2.5, (4,), (1, 4, 4)):
        with pytest.raises(ConfigError, match="Image" + name):
            vector(wrong)


@pytest.mark.parametrize("name", [name for name in FORMS if name != "InFlow"])
def test_an_unknown_dequantization(name):
    with pytest.raises(ConfigError, match="dequantize"):
        getattr(pf.models, "Image" + name)((1, 4, 4), dequantize="none")


@pytest.mark.parametrize("cls", [Glow, ConvGlow], ids=lambda cls: cls.__name__)
def test_errors_of_glow(cls):
    for shape in (4, (4,), (4, 4), (0, 4, 4)):
        with pytest.raises(ConfigError):
            cls(shape)
    for options in (
        {"layers": 0},
        {"scales": 0},
        {"levels": 0},
        {"alpha": 0.7},
        {"dequantize": "none"},
        {"hidden": (0,)},
    ):
        with pytest.raises(ConfigError):
            cls((1, 4, 4), **options)
    with pytest.raises(ConfigError, match="linear"):
        Glow((1, 4, 4), linear="lu")
    with pytest.raises(ConfigError, match="mode"):
        ConvGlow((1, 4, 4), mode="1x1")


def parts(model: Model) -> list[str]:
    """Names of all transforms in order, those inside a factoring-out after it."""
    names = []
    waiting = list(model.chain)
    while waiting:
        part = waiting.pop(0)
        names.append(type(part).__name__)
        if isinstance(part, transforms.FactorOut):
            waiting = [*part.inner, *waiting]  # pyright: ignore[reportGeneralTypeIssues]
    return names


def test_the_parts_of_glow():
    model = Glow((3, 8, 8), scales=2, layers=1, hidden=(4,))
    step = ["ActNorm", "InvertibleConv1x1", "ImageCoupling"]
    scale = ["Squeeze", *step]
    assert parts(model) == [
        "UniformDequantize", "Logit", *scale, "ImageCoupling", "FactorOut", *scale, "Flatten"]  # fmt: skip
    assert "FactorOut" not in parts(Glow((3, 8, 8), scales=2, layers=1, hidden=(4,), factor_out=False))
    assert parts(Glow((3, 8, 8), scales=1, layers=1, hidden=(4,), linear="reverse", alpha=None))[:5] == [
        "UniformDequantize", "Affine", "Squeeze", "ActNorm", "Reverse"]  # fmt: skip


def test_the_parts_of_real_nvp():
    """Three checkerboards, three channel couplings between squeezes, and four checkerboards in the last scale."""
    model = ImageRealNVP(shape=(3, 8, 8), layers=6, scales=2, hidden=(4,), standardize=False)
    board = ["ImageCoupling"] * 3
    assert parts(model) == [
        "UniformDequantize", "Logit", *board, "Squeeze", *board, "Inverse", "Squeeze", "FactorOut", *board,
        "ImageCoupling", "Flatten"]  # fmt: skip
    masks = [part.mask for part in model.chain if isinstance(part, transforms.ImageCoupling)]
    assert masks == ["checkerboard"] * 3 + ["channels"] * 3


def test_one_color_of_the_checkerboard_is_factored_out_first():
    """At its start Real NVP's couplings do nothing, so z is the image in the order of the scales."""
    model = ImageRealNVP(shape=(2, 4, 4), layers=2, scales=2, hidden=(4,), standardize=False, alpha=None).double()
    x = images((2, 4, 4), 1)
    board = (torch.arange(4)[:, None] + torch.arange(4)) % 2
    dequantized = next(iter(model.chain)).encode(x.double()).z[0] - 0.5
    z = model.encode(x)[0]
    assert set(z[:16].tolist()) == set(dequantized[:, board == 0].flatten().tolist())
    assert set(z[16:].tolist()) == set(dequantized[:, board == 1].flatten().tolist())


@pytest.mark.parametrize(
    "name", [name for name in TINY if name != "glow, shuffle"]
)  # its shuffle is not complete in 2 steps
def test_every_latent_depends_on_the_image(name):
    torch.manual_seed(0)
    model = moved(TINY[name]((1, 4, 4)), 0.3)
    y = torch.rand(1, 4, 4, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda one: forward(model, one)[0], y).reshape(16, 16)
    assert ((jacobian != 0).sum(0) > 1).all()
    assert ((jacobian != 0).sum(1) > 1).all()


def test_initialization_normalizes_every_channel():
    torch.manual_seed(0)
    model = Glow((1, 8, 8), scales=2, layers=2, hidden=(8,)).double()
    x = images((1, 8, 8), 500)
    model.initialize(x)
    z = x.double()
    for part in model.chain:
        z = part.encode(z).z
        if isinstance(part, transforms.ActNorm):
            torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(z.shape[1]).double(), rtol=0, atol=1e-5)
            torch.testing.assert_close(z.std((0, 2, 3)), torch.ones(z.shape[1]).double(), rtol=1e-3, atol=0)


def errors(model: Model, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The largest error of each image after a round trip of real coordinates through the flow, in gray levels."""
    found = []
    with torch.no_grad():
        for part in x.split(250):
            y = (part.to(dtype) + 0.5) / 256
            found.append(256 * (backward(model, forward(model, y)[0]) - y).abs().flatten(1).amax(1))
    return torch.cat(found)


@pytest.mark.parametrize("build", [Glow, ConvGlow], ids=lambda cls: cls.__name__)
def test_round_trip_of_a_trained_float32_flow(build):
    """Images come back; float64 coordinates through the float32 networks do so to rounding, as both directions use one factor."""
    x = torch.from_numpy(load_image_sample("fashion-mnist"))[:, None, 1:-1:3, 1:-1:3][:, :, :8, :8]
    torch.manual_seed(0)
    model = build((1, 8, 8), scales=2, layers=3, hidden=(16, 16))
    pf.fit(model, x[100:], validation=None, batch_size=64, max_steps=60, learning_rate=5e-3, progress="silent")
    assert torch.equal(model.decode(model.encode(x[:100], float64=True), float64=True), x[:100].double())
    assert (model.decode(model.encode(x[:100])) - x[:100]).abs().max() <= 1
    assert errors(model, x[:100], torch.float32).max() < 1e-3
    assert errors(model, x[:100], torch.float64).max() < 1e-9
    assert next(model.parameters()).dtype == torch.float32


def read_images(name: str) -> torch.Tensor:
    folder = os.environ.get("PUSHFORWARD_DATA")
    path = Path(folder or ".") / "fashion-mnist" / f"{name}-images-idx3-ubyte.gz"
    if not folder or not path.exists():
        pytest.skip("needs Fashion-MNIST in PUSHFORWARD_DATA")
    with gzip.open(path) as file:
        raw = np.frombuffer(file.read(), dtype=np.uint8, offset=16)
    return torch.from_numpy(raw.reshape(-1, 1, 28, 28).copy())


@pytest.mark.slow
def test_a_tiny_glow_beats_independent_pixels_on_fashion_mnist():
    """Less than a minute of training on every second row and column; bits/dim against each pixel's own histogram."""
    train, test = (read_images(name)[:, :, ::2, ::2] for name in ("train", "t10k"))
    test = test[:1000]
    counts = torch.zeros(196, 256).scatter_add_(1, train.flatten(1).T.long(), torch.ones(196, len(train)))
    log_p = ((counts + 0.5) / (len(train) + 128)).log2()
    baseline = -log_p.gather(1, test.flatten(1).T.long()).mean().item()
    torch.manual_seed(0)
    model = Glow((1, 14, 14), scales=1, layers=6, hidden=(32, 32))
    pf.fit(model, train[:20_000], validation=train[-200:], batch_size=64, max_steps=300, evaluate_every=150, learning_rate=5e-3,
           progress="silent")  # fmt: skip
    with torch.no_grad():
        bits = torch.cat([model.evaluate(part).bits_per_dim() for part in test.split(100)])
        back = model.decode(model.encode(test[:100]))
    assert bits.mean().item() < baseline - 0.1
    assert torch.equal(back, test[:100].float())
    y = next(iter(model.chain)).encode(test[:100].float()).z
    with torch.no_grad():
        assert 256 * (backward(model, forward(model, y)[0]) - y).abs().max() < 1e-3


@pytest.mark.slow
def test_round_trip_of_a_trained_glow_on_all_test_images_of_fashion_mnist():
    """10,000 images, less than a minute: float64 coordinates through float32 networks lose nothing; float32 ones a pixel in 100,000."""
    train, test = read_images("train"), read_images("t10k")
    torch.manual_seed(0)
    model = Glow((1, 28, 28), scales=2, layers=4, hidden=(32, 32))
    pf.fit(model, train[:20_000], validation=train[-500:], batch_size=64, max_steps=400, patience=None, evaluate_every=100,
           progress="silent")  # fmt: skip
    with torch.no_grad():
        for part in test.split(250):
            assert torch.equal(model.decode(model.encode(part, float64=True), float64=True), part.double())
        off = torch.cat([(model.decode(model.encode(part)) - part).abs() for part in test.split(250)])
    assert off.max() <= 1
    assert (off > 0).double().mean() < 1e-4
    assert errors(model, test, torch.float64).max() < 1e-9
    # In float32 throughout, an image or two of 10,000 whose latents are badly conditioned may be off by up to about 0.0015.
    single = errors(model, test, torch.float32)
    assert single.quantile(0.999) < 1e-3
    assert single.max() < 1e-2


def test_normalized_networks_have_similar_scores_in_training_and_evaluation():
    """After the statistics belong to the weights, within 0.05 nats a dimension (batches of 200 against 2000 rows)."""
    torch.manual_seed(0)
    model = ImageRealNVP(shape=(1, 4, 4), layers=2, hidden=(8, 8), normalize=True, batch_norm=True)
    x = images((1, 4, 4), 2000)
    pf.fit(model, x, max_steps=30, batch_size=200, validation=None, learning_rate=1e-2, progress="silent")
    model.refresh(x)
    with torch.no_grad():
        model.train()
        training = torch.stack([-model.loss(part) for part in x.split(200)]).mean()
        model.eval()
        evaluation = model.evaluate(x).value.mean()
        assert (training - evaluation).abs() / 16 < 0.05
        one = model.evaluate(x[5:6]).value
        torch.testing.assert_close(model.evaluate(x[:10]).value[5:6], one)
        assert torch.equal(model.decode(model.encode(x[:50])), x[:50].float())


def test_the_parts_of_flow_plus_plus():
    model = FlowPlusPlus((3, 4, 4), layers=(2, 1, 1), components=2, hidden=(4,))
    step = ["ActNorm", "InvertibleConv1x1", "ImageCoupling"]
    assert parts(model) == [
        "VariationalDequantize", "Logit", *step, *step, "Squeeze", *step, *step, "ActNorm", "Flatten"]  # fmt: skip
    couplings = [part for part in model.chain if isinstance(part, transforms.ImageCoupling)]
    assert [part.mask for part in couplings] == ["checkerboard", "checkerboard", "channels", "checkerboard"]
    for wrong in ({"layers": (1, 2)}, {"layers": 3}, {"layers": (1, -1, 0)}, {"components": 0}, {"heads": 3}):
        with pytest.raises(ConfigError):
            FlowPlusPlus((1, 4, 4), **wrong)
    with pytest.raises(ConfigError, match="even"):
        FlowPlusPlus((1, 3, 4))
