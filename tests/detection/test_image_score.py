"""Distances in principal subspaces, code lengths of coarse images, and the score of images."""

import io
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from pushforward.detection import image_score
from pushforward.detection.image_score import IMAGE_TRAINING, ImageScore, fit_image_score, prepare
from pushforward.detection.scores import CodeLength, DoSE, LikelihoodPath, Log, Neighbors, PrincipalDistances, principal
from pushforward.errors import ConfigError, InputError
from pushforward.models import ImageNICE


def stripes(n: int, seed: int, size: int = 8) -> torch.Tensor:
    """Smooth waves of random phase, 8 bits."""
    g = torch.Generator().manual_seed(seed)
    phase, slope = 6.3 * torch.rand(n, 1, 1, generator=g), torch.rand(n, 1, 1, generator=g)
    rows, columns = torch.arange(size)[:, None], torch.arange(size)
    wave = 127 + 100 * torch.sin(0.9 * columns + slope * rows + phase)
    return (wave + 3 * torch.randn(n, size, size, generator=g)).round().clamp(0, 255).to(torch.uint8)[:, None]


class TestPrincipalDistances:
    def test_by_hand(self):
        """Reference on a line: outside is the squared distance to the line, inside the squared normal deviate along it."""
        t = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0, 3.0, -3.0], dtype=torch.float64)
        line = torch.stack((3 * t, 4 * t, 0 * t), 1) / 5
        distances = PrincipalDistances((1, 2, 3), k=1).fit(line)
        x = torch.tensor([[0.6, 0.8, 7.0]], dtype=torch.float64)  # one along, seven across
        values = dict(zip(distances.names, distances.values(x)[0].tolist(), strict=True))
        variance = t.square().mean().item()
        assert values["outside 1"] == pytest.approx(math.log(49 / variance + 1e-4), abs=1e-9)
        assert values["inside 1"] == pytest.approx(math.log(1 / variance + 1e-4), abs=1e-9)
        assert values["outside 3"] == pytest.approx(math.log(1e-4), abs=1e-3)
        assert values["white neighbors"] == pytest.approx(math.log(1e-4), abs=1e-6)  # it lies beside t = 1

    def test_the_unit_does_not_matter(self):
        rows = torch.randn(60, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        x = 3 * rows[:5].flip(1)
        one = PrincipalDistances((1, 2, 4)).fit(rows).values(x)
        other = PrincipalDistances((1, 2, 4)).fit(1000 * rows + 5).values(1000 * x + 5)
        torch.testing.assert_close(one, other)

    def test_neighbors_in_the_whole_space_are_neighbors(self):
        rows = torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        x = torch.randn(9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        distances = PrincipalDistances((1, 3, 4), k=4).fit(rows)  # the middle subspace is everything
        near = distances.values(x)[:, distances.names.index("neighbors")]
        total = (rows - rows.mean(0)).square().sum(1).mean()
        expected = torch.log(Neighbors(k=4).fit(rows)(x) / total.sqrt() + 1e-4)
        torch.testing.assert_close(near, expected)

    def test_a_row_has_the_same_values_at_every_place_of_a_batch(self):
        g = torch.Generator().manual_seed(0)
        for n, width in ((20, 64), (20, 256), (90, 256), (40, 9), (257, 64)):
            rows, x = (torch.randint(0, 256, (k, width), generator=g).double() for k in (n, 8))
            for values in (PrincipalDistances().fit(rows).values, Neighbors(k=3).fit(rows).values):
                for one in x:
                    found = values(one.expand(256, width))
                    assert torch.equal(found, found[:1].expand_as(found)), (n, width)

    def test_more_values_than_rows(self):
        """The thin form has the directions and variances of the d x d matrix, without those along which no row varies."""
        rows = torch.randn(30, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * torch.arange(
            1, 51
        )
        rows[29] = rows[28]  # one direction fewer
        distances = PrincipalDistances((2, 8, 40)).fit(rows)
        centered = rows - rows.mean(0)
        variances, directions = torch.linalg.eigh(centered.T @ centered / 30)
        assert distances.directions.shape == (50, 29)
        torch.testing.assert_close(distances.directions.T @ distances.directions, torch.eye(29, dtype=torch.float64))
        torch.testing.assert_close(distances.spread[:28], variances.flip(0)[:28].sqrt())
        torch.testing.assert_close(
            (distances.directions[:, :28] * directions.flip(1)[:, :28]).sum(0).abs(), torch.ones(28).double()
        )
        torch.testing.assert_close(distances.scale, variances.sum())

    def test_many_values_need_no_square_matrix_of_them(self):
        """A matrix of 100,000 x 100,000 numbers would have 75 GiB."""
        rows = torch.randint(0, 256, (30, 3, 40, 834), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
        near, far = PrincipalDistances().fit(rows).values(torch.stack((rows[0], 255 - rows[0])))[:, 4]  # outside
        assert near < far

    def test_directions_of_a_part_of_the_rows(self, monkeypatch):
        monkeypatch.setattr(principal, "_MOST_ROWS", 100)
        g = torch.Generator().manual_seed(0)
        rows = torch.randn(300, 400, dtype=torch.float64, generator=g)
        rows[:, :3] *= torch.tensor([60.0, 40.0, 20.0])
        one, other = (PrincipalDistances((1, 3, 256)).fit(rows) for _ in range(2))
        assert torch.equal(one.directions, other.directions)
        assert one.directions.shape == (400, 99)
        centered = rows - rows.mean(0)
        torch.testing.assert_close(one.spread, (centered @ one.directions).square().mean(0).sqrt())
        assert (one.directions[:3, :3].diagonal().abs() > 0.9).all()

    def test_constant_rows(self):
        constant = PrincipalDistances((1, 2, 3), k=1).fit(torch.ones(5, 40))
        assert torch.isfinite(constant.values(torch.ones(2, 40) * 2)).all()
        values = PrincipalDistances((1, 2, 3), k=1).fit(torch.ones(9, 4)).values(torch.tensor([[1.0] * 4, [2.0] * 4]))
        assert torch.isfinite(values).all()
        assert (values[1] > values[0]).any()

    def test_refusals(self):
        for sizes in ((1, 2), (2, 1, 3), (0, 1, 2), (1, 1, 2)):
            with pytest.raises(ConfigError, match="three increasing"):
                PrincipalDistances(sizes)
        with pytest.raises(ConfigError, match="rows must be an integer of at least 5"):
            PrincipalDistances(k=5, rows=4)
        with pytest.raises(InputError, match="more than k=5 reference rows; got 3"):
            PrincipalDistances().fit(torch.ones(3, 2))
        with pytest.raises(InputError, match="rows of 4 values; got rows of 5"):
            PrincipalDistances((1, 2, 3)).fit(torch.randn(9, 4)).values(torch.ones(1, 5))


def test_code_length_of_a_coarse_image():
    """The means of 2 x 2 squares, compressed by the same compressor."""
    image = torch.randint(256, (1, 1, 6, 4), generator=torch.Generator().manual_seed(0))
    coarse = image.double().reshape(1, 1, 3, 2, 2, 2).mean((3, 5)).round().to(torch.uint8)
    stream = io.BytesIO()
    Image.fromarray(coarse[0, 0].numpy()).save(stream, format="PNG", compress_level=9)
    statistic = CodeLength("png", pool=2)
    assert statistic.names == ("png / 2",)
    assert statistic.values(image).item() == 8 * len(stream.getvalue())
    assert Log(statistic).values(image).item() == math.log(8 * len(stream.getvalue()))
    with pytest.raises(ConfigError, match="pool"):
        CodeLength("png", pool=0)


def test_fitted_parts_are_kept_with_refit_false():
    train, held, x = (torch.randn(40, 2, generator=torch.Generator().manual_seed(s)) for s in range(3))
    part = Neighbors(1).fit(train)
    before = part(x)
    DoSE(part, refit=False).fit(held)
    assert torch.equal(part(x), before)
    DoSE(part).fit(held)
    assert not torch.equal(part(x), before)


class TestPrepare:
    def test_bits_squares_and_borders(self):
        x = torch.arange(2 * 5 * 6).reshape(2, 1, 5, 6) * 256
        small = prepare(x, 1, 8)
        assert small.shape == (2, 1, 8, 8)
        assert torch.equal(small[..., :5, :6], (x // 256).to(torch.uint8))
        assert torch.equal(small[..., 5:, :6], small[..., 4:5, :6].expand(-1, -1, 3, -1))
        pooled = prepare(torch.full((1, 3, 9, 9), 200, dtype=torch.uint8), 2, 0)
        assert pooled.shape == (1, 3, 8, 8)
        assert (pooled == 200).all()

    def test_images_of_another_kind_are_refused(self):
        score = ImageScore(DoSE(LikelihoodPath(ImageNICE(shape=(1, 4, 4)))), (1, 4, 4))
        for wrong, words in (
            (torch.full((2, 1, 4, 4), 256), "0 to 255"),
            (torch.full((1, 1, 4, 4), -1), "0 to 255"),
            (torch.full((1, 1, 4, 4), 0.5), "0 to 255"),
            (torch.zeros(1, 3, 4, 4), r"shape \(1, 4, 4\)"),
        ):
            with pytest.raises(InputError, match=words):
                score.prepare(wrong)


def test_it_separates_waves_from_other_images():
    """Noise, constants, negatives of bars: all far from waves in some statistic."""
    images = stripes(460, 0)
    score = fit_image_score(images[:360], images[360:], config=replace(IMAGE_TRAINING, max_steps=60, progress="silent"))
    normal = score(stripes(200, 1))
    g = torch.Generator().manual_seed(2)
    for name, other in {
        "noise": torch.randint(256, (100, 1, 8, 8), generator=g),
        "constant": torch.arange(100).reshape(100, 1, 1, 1).expand(100, 1, 8, 8),
        "shuffled": stripes(100, 3).flatten(1)[:, torch.randperm(64, generator=g)].reshape(-1, 1, 8, 8),
    }.items():
        assert (score(other).numpy() > np.quantile(normal.numpy(), 0.95)).mean() > 0.95, name


def test_held_out_images_are_drawn_at_random(monkeypatch):
    """Files often have their images in the order of the classes."""
    dark, bright = stripes(100, 0) // 2, stripes(100, 1) // 2 + 128
    seen = {}

    def fit(flow, images, validation, config):
        seen.update(train=images, validation=validation)

    monkeypatch.setattr(image_score, "fit", fit)
    fit_image_score(torch.cat((dark, bright)), 0.2, config=replace(IMAGE_TRAINING, max_steps=1))
    assert (len(seen["train"]), len(seen["validation"])) == (160, 40)
    for part in seen.values():
        fraction = (part.float().mean((1, 2, 3)) > 128).double().mean().item()
        assert 0.25 < fraction < 0.75


def test_held_out_images_can_be_given(monkeypatch):
    images, seen = stripes(100, 0), []
    monkeypatch.setattr(image_score, "fit", lambda flow, x, validation, config: seen.append((x, validation)))
    fit_image_score(images[:60], images[60:], config=replace(IMAGE_TRAINING, max_steps=1))
    assert torch.equal(seen[0][0], images[:60])
    assert torch.equal(seen[0][1], images[60:])


def test_it_is_one_of_the_scores_of_inputs():
    images = stripes(80, 0)
    score = fit_image_score(images, 0.25, config=replace(IMAGE_TRAINING, max_steps=2, progress="silent"))
    assert score.reads == "images"
    assert not score.has_density
    assert score.score(images[:5]).dtype == np.float64
    assert np.array_equal(score.score(images[:5]), score(images[:5]).numpy())
    for refused in (
        lambda: score.explain(images),
        lambda: score.sample(1, 0),
        lambda: score.compile_scorer(np.zeros(3)),
    ):
        with pytest.raises(ConfigError, match="this guard reads images"):
            refused()
    description, tensors = score.pack("s.")
    again = ImageScore.unpack(description, tensors, "s.")
    assert np.array_equal(again.score(images[:5]), score.score(images[:5]))


def test_too_few_held_out_images():
    with pytest.raises(InputError, match="at least 20"):
        fit_image_score(stripes(30, 0), stripes(10, 1))
    with pytest.raises(InputError, match="at least 40 images to fit"):
        fit_image_score(stripes(30, 0))
    with pytest.raises(ConfigError, match="'maf'"):
        fit_image_score(stripes(30, 0), stripes(30, 1), kind="maf")


def test_it_has_the_needs_of_its_score():
    inner = DoSE(LikelihoodPath(ImageNICE(shape=(1, 4, 4), layers=2, hidden=(4,))), Log(CodeLength("png")))
    assert ImageScore(inner, (1, 4, 4)).needs == {"forward", "compressor"}
