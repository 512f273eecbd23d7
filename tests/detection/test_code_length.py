"""Code lengths, and likelihoods beside them."""

import bz2
import io
import lzma
import math
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from pushforward import models
from pushforward.detection import scores
from pushforward.detection.scores.code_length import CODECS, code_lengths
from pushforward.errors import ConfigError, InputError, KindError


def images(rows: int, channels: int = 1, side: int = 8, seed: int = 0) -> torch.Tensor:
    """Images of growing complexity: row i has i + 1 of all levels, up to 256."""
    source = torch.Generator().manual_seed(seed)
    x = torch.randint(256, (rows, channels, side, side), generator=source)
    return x % (1 + torch.arange(rows) % 256)[:, None, None, None]


def model(side: int = 8) -> models.Model:
    return models.ImageNICE(shape=(1, side, side), layers=2, hidden=(8,)).eval()


class TestCodeLength:
    def test_bytes_of_plain_compressors(self):
        x = images(5, 2).to(torch.uint8)
        raw = [row.numpy().tobytes() for row in x]
        expected = [
            [8 * len(zlib.compress(r, 9)), 8 * len(bz2.compress(r)), 8 * len(lzma.compress(r, preset=9))] for r in raw
        ]
        got = scores.CodeLength("zlib", "bz2", "lzma").values(x)
        assert got.tolist() == expected

    @pytest.mark.parametrize("codec", ["png", "webp"])
    @pytest.mark.parametrize("channels", [1, 3, 4])
    def test_pictures_are_lossless(self, codec, channels):
        image = images(3, channels)[2].to(torch.uint8).numpy()
        with Image.open(io.BytesIO(CODECS[codec](image))) as picture:
            back = np.asarray(picture.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels]))
        assert (back.reshape(8, 8, channels) == np.moveaxis(image, 0, -1)).all()

    @pytest.mark.parametrize("codec", list(CODECS))
    def test_simple_images_have_short_codes_and_noise_has_long_ones(self, codec):
        """No code can be shorter than 8 bits a pixel for all noise, and a constant needs next to nothing of it."""
        noise, flat = torch.randint(256, (1, 1, 32, 32)), torch.full((1, 1, 32, 32), 7)
        bits = code_lengths(torch.cat((noise, flat)), (codec,))[:, 0]
        assert bits[0] > 8 * 1024
        assert bits[1] < 0.15 * bits[0]

    def test_type_does_not_matter(self):
        x = images(4)
        for other in (x.double(), x.to(torch.uint8), x.int()):
            assert torch.equal(scores.CodeLength().values(other), scores.CodeLength().values(x))

    def test_errors_of_arguments(self):
        x = images(4).double()
        for wrong in (x / 255, x + 254, x - 5):
            with pytest.raises(InputError, match="row"):
                scores.CodeLength().values(wrong)
        with pytest.raises(InputError, match="channels, height, width"):
            scores.CodeLength().values(x[:, 0])
        with pytest.raises(InputError, match="1, 3 or 4 channels"):
            scores.CodeLength().values(images(2, 2))
        for codecs in (("jpeg",), ("png", "png")):
            with pytest.raises(ConfigError, match="codecs"):
                scores.CodeLength(*codecs)

    def test_as_a_score(self):
        """Too simple and too complex are both unusual."""
        reference = torch.randint(16, (99, 1, 16, 16))
        score = scores.TwoSided(scores.CodeLength("zlib")).fit(reference)
        x = torch.cat((torch.zeros(1, 1, 16, 16), torch.randint(256, (1, 1, 16, 16)), reference[:20]))
        got = score(x)
        assert got[:2].min() > got[2:].max()


class TestInputComplexity:
    def test_fixed_slope(self):
        """-log2 p - L in bits, which is the paper's S, times log 2."""
        x, flow = images(6), model()
        shortest = torch.minimum(code_lengths(x, ("png",)), code_lengths(x, ("zlib",)))[:, 0]
        bits = -flow.evaluate(x).value.double() / math.log(2) - shortest
        got = scores.InputComplexity(flow, ("png", "zlib"))(x)
        torch.testing.assert_close(got / math.log(2), bits, rtol=1e-5, atol=1e-3)

    def test_fitted_line(self):
        x, flow = images(60, seed=1), model()
        lengths, surprise = code_lengths(x, ("zlib",))[:, 0], -flow.evaluate(x).value.double()
        slope, intercept = np.polyfit(lengths.numpy(), surprise.detach().numpy(), 1)
        score = scores.InputComplexity(flow, ("zlib",), form="fitted").fit(x)
        assert float(score.slope) == pytest.approx(slope, rel=1e-4)
        residual = score(x)
        torch.testing.assert_close(residual, surprise.detach() - intercept - slope * lengths, rtol=1e-4, atol=1e-2)
        assert abs(float(residual.mean())) < 1e-9  # normal equations
        assert abs(float((residual * (lengths - lengths.mean())).mean())) < 1e-6

    def test_images_of_one_length(self):
        """No slope can be found, so only the mean is taken off."""
        x = torch.zeros(5, 1, 8, 8)
        score = scores.InputComplexity(model(), form="fitted").fit(x)
        assert score.slope == 0
        torch.testing.assert_close(score(x), torch.zeros(5, dtype=torch.float64))

    def test_both_sides(self):
        x = images(99, seed=1)
        plain = scores.InputComplexity(model(), form="fitted").fit(x)
        both = scores.InputComplexity(plain.model, form="fitted", two_sided=True).fit(x)
        order = plain(x).argsort()
        assert both(x)[order[0]] == pytest.approx(-math.log(2 * 2 / 100))  # one value is at most the smallest: itself
        assert both(x)[order[49]] == 0

    def test_units(self):
        density = models.NICE(4)
        with pytest.raises(KindError, match="dequantization"):
            scores.InputComplexity(density)
        assert scores.InputComplexity(density, form="fitted").form == "fitted"
        with pytest.raises(ConfigError, match="form"):
            scores.InputComplexity(model(), form="regression")


def test_trivial_scores():
    """Against the ranks of NumPy's mean and variance."""
    reference, x = torch.rand(199, 1, 4, 4), torch.rand(30, 1, 4, 4)
    for score, statistic in ((scores.Brightness(), np.mean), (scores.Variance(), np.var)):
        expected = torch.from_numpy(statistic(reference.double().numpy(), axis=(1, 2, 3))).sort().values
        values = torch.from_numpy(statistic(x.double().numpy(), axis=(1, 2, 3)))
        low = (1 + (expected[None] <= values[:, None]).sum(1)) / 200
        high = (1 + (expected[None] >= values[:, None]).sum(1)) / 200
        inside = (values > expected[0]) & (values < expected[-1])
        got = score.fit(reference)(x)
        torch.testing.assert_close(got[inside].float(), -torch.log((2 * torch.minimum(low, high)).clamp(max=1))[inside])
