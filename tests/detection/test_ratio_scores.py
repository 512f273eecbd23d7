"""Ratios of likelihoods: against a background, a general model, and a model's own prior."""

import copy
import math

import numpy as np
import pytest
import torch
from scipy import stats

from pushforward import distributions, models, transforms
from pushforward.detection import scores
from pushforward.detection.scores import mutate
from pushforward.errors import ConfigError, KindError


def gauss(scale: float) -> models.Model:
    return models.Flow(transforms.Affine(2, scale=1 / scale), distributions.Normal(2)).double()


def stirred(model: models.Model, size: float = 0.1) -> models.Model:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(size * torch.randn_like(parameter))
    return model.eval()


class TestMutate:
    def test_rate_and_distribution(self):
        """A draw hits the old value once in 4, so a rate of 0.4 changes 0.3 of the values, to the three others alike."""
        x = torch.full((40_000,), 2, dtype=torch.uint8)
        spoilt = mutate(x, 0.4, torch.Generator().manual_seed(0), levels=4)
        assert spoilt.dtype is torch.uint8
        counts = torch.bincount(spoilt.long(), minlength=4).double() / len(x)
        torch.testing.assert_close(counts, torch.tensor([0.1, 0.1, 0.7, 0.1]).double(), atol=0.01, rtol=0)

    def test_ends(self):
        x = torch.randint(256, (3, 1, 16, 16))
        assert torch.equal(mutate(x, 0.0), x)
        all_new = mutate(x, 1.0, torch.Generator().manual_seed(0))
        assert stats.kstest((all_new.flatten().numpy() + 0.5) / 256, "uniform").pvalue > 0.01
        assert torch.equal(mutate(x, 1.0, torch.Generator().manual_seed(0)), all_new)

    def test_the_default_type_changes_nothing(self):
        x = torch.zeros(1000, dtype=torch.uint8)
        torch.set_default_dtype(torch.float64)
        try:
            found = mutate(x, 0.3, torch.Generator().manual_seed(0))
        finally:
            torch.set_default_dtype(torch.float32)
        assert torch.equal(found, mutate(x, 0.3, torch.Generator().manual_seed(0)))

    def test_errors_of_arguments(self):
        x = torch.zeros(2, 2, dtype=torch.uint8)
        for rate, levels in ((1.5, 4), (math.nan, 4), (0.1, 0), (0.1, 257)):
            with pytest.raises(ConfigError):
                mutate(x, rate, levels=levels)


class TestLikelihoodRatio:
    def test_two_normals(self):
        """log N(x; 0, 1) - log N(x; 0, 9 I) = 2 log 3 - |x|^2 (1 - 1/9) / 2."""
        x = torch.randn(20, 2, dtype=torch.float64)
        got = scores.LikelihoodRatio(gauss(1.0), gauss(3.0))(x)
        torch.testing.assert_close(got, x.square().sum(1) * (4 / 9) - 2 * math.log(3))

    def test_both_models_get_the_same_noise(self):
        """A copy whose base is wider by 1e-3: with other noise the ratio would spread as the bound does."""
        model = stirred(models.ImageNICE(shape=(1, 6, 6), layers=2, hidden=(8,), prior="normal", levels=4))
        other = models.Flow(copy.deepcopy(model.chain), distributions.Normal(36, trainable=True))
        with torch.no_grad():
            other.base.log_scale.add_(1e-3)  # pyright: ignore[reportOperatorIssue, reportCallIssue]
        x = torch.randint(4, (30, 1, 6, 6))
        length = model.encode(x).double().square().sum(1)
        expected = length / 2 * (1 - math.exp(-2e-3)) - 36 * 1e-3
        torch.testing.assert_close(scores.LikelihoodRatio(model, other)(x), expected, atol=1e-3, rtol=0)
        noise = [model.evaluate(x, seed=seed).value for seed in (0, 1)]
        assert (noise[0] - noise[1]).std() > 0.1
        assert torch.equal(scores.LikelihoodRatio(model, copy.deepcopy(model))(x), torch.zeros(30, dtype=torch.float64))

    def test_rows_of_density_zero(self):
        half = models.Flow(
            transforms.Inverse(transforms.Exp(2)), distributions.Normal(2)
        ).double()  # log-normal, on positive numbers
        x = torch.tensor([[-1.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
        assert scores.LikelihoodRatio(half, gauss(1.0))(x).tolist()[0] == math.inf
        assert scores.LikelihoodRatio(half, half)(x).tolist() == [math.inf, 0.0]
        assert scores.LikelihoodRatio(gauss(1.0), half)(x).tolist()[0] == -math.inf

    def test_pairs_that_do_not_compare(self):
        with pytest.raises(ConfigError, match="shape"):
            scores.LikelihoodRatio(models.NICE(2), models.NICE(3))
        real = models.TarFlow((1, 2, 2), 1, None, blocks=1, width=8, layers=1, heads=2)
        with pytest.raises(KindError, match="units"):
            scores.LikelihoodRatio(models.ImageNICE(shape=(1, 2, 2)), real)


class TestGeneralModelRatio:
    def flows(self) -> list[models.Model]:
        return [stirred(models.Glow((1, 8, 8), scales=3, layers=1, hidden=(4,), levels=4).double()) for _ in range(2)]

    def test_scales_add_up_to_the_whole(self):
        own, general = self.flows()
        x = torch.randint(4, (5, 1, 8, 8))
        shares = sum(scores.GeneralModelRatio(own, general, scale)(x) for scale in range(3))
        torch.testing.assert_close(shares, scores.LikelihoodRatio(own, general)(x), rtol=1e-9, atol=1e-8)
        last, named = (scores.GeneralModelRatio(own, general, scale)(x) for scale in (-1, 2))
        assert torch.equal(last, named)

    def test_coarsest_scale_by_hand(self):
        """The channel that stays is x or 3 x under N(0, 1): -log p is x^2 / 2, or 9 x^2 / 2 - log 3 for each coordinate."""

        def flow(scale: float) -> models.Model:
            inside = transforms.FactorOut((2, 2, 1), transforms.Affine((1, 2, 1), scale=scale))
            return models.Flow(
                transforms.Chain(transforms.Permutation((2, 2, 1), order=(0, 1), dim=-3), inside),
                distributions.Normal(4),
            ).double()

        x = torch.randn(6, 2, 2, 1, dtype=torch.float64)
        got = scores.GeneralModelRatio(flow(3.0), flow(1.0))(x)
        torch.testing.assert_close(got, 4 * x[:, 0].flatten(1).square().sum(1) - 2 * math.log(3))
        got = scores.GeneralModelRatio(flow(3.0), flow(1.0), scale=0)(x)
        torch.testing.assert_close(got, torch.zeros(6, dtype=torch.float64))

    def test_errors_of_arguments(self):
        own, _ = self.flows()
        for other, scale in (
            (models.Glow((1, 8, 8), scales=2, layers=1, hidden=(4,), levels=4), -1),
            (own, 3),
            (own, 1.0),
        ):
            with pytest.raises(ConfigError, match="scale"):
                scores.GeneralModelRatio(own, other, scale)  # pyright: ignore[reportArgumentType]


class TestHierarchicalRatio:
    def deep(self) -> models.Model:
        chain = transforms.Chain(
            transforms.Standardize(5),
            transforms.Variational(5, 4, hidden=(8,)),
            transforms.Affine(4, scale=2.0),
            transforms.Variational(4, 3, hidden=(8,)),
            transforms.Variational(3, 2, hidden=(8,)),
        )
        return stirred(models.Flow(chain, distributions.Normal(2)).double(), 0.3)

    @pytest.mark.parametrize("k", [1, 2])
    def test_against_the_two_bounds(self, k):
        """L from evaluate, and L>k from its definition: the top from the posterior, the rest from above."""
        model, x = self.deep(), torch.randn(7, 5, dtype=torch.float64)
        standardize, first, affine, second, third = model.chain
        bound = model.evaluate(x).value
        seen = standardize.encode(x).z
        one = first.draw(seen, None)  # pyright: ignore[reportCallIssue]
        two = second.draw(affine.encode(one.z).z, None)  # pyright: ignore[reportCallIssue]
        three = third.draw(two.z, None)  # pyright: ignore[reportCallIssue]
        top = model.base.log_prob(three.z) - three.log_q
        if k == 1:
            above = affine.decode(second.decode(two.z))
            top = top + three.log_p - two.log_q
        else:
            above = affine.decode(second.decode(third.decode(three.z)))
        mean, raw_scale = first.raw(above).detach().numpy().transpose(2, 0, 1)  # pyright: ignore[reportCallIssue]
        law = stats.norm(mean, np.exp(5 * np.tanh(raw_scale / 5)))
        explained = torch.from_numpy(law.logpdf(seen.numpy()).sum(1))
        expected = bound - (explained + top)
        torch.testing.assert_close(scores.HierarchicalRatio(model, k)(x), expected.detach(), rtol=1e-9, atol=1e-9)

    def test_errors_of_arguments(self):
        for k in (0, 3):
            with pytest.raises(ConfigError, match="latent variables"):
                scores.HierarchicalRatio(self.deep(), k)
        with pytest.raises(ConfigError, match="latent variables"):
            scores.HierarchicalRatio(models.VAE(3, 2, hidden=(4,)))
