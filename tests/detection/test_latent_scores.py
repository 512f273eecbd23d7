"""Typicality, ranks of both sides, norms, distances and dependence of latents, by hand and beside other code."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import NearestNeighbors

from pushforward import distributions, models, transforms
from pushforward.detection import scores
from pushforward.detection.scores.scales import latent_blocks
from pushforward.detection.scores.two_sided import two_sided
from pushforward.errors import ConfigError, InputError


def standard(width: int, scale: float = 1.0) -> models.Model:
    """z = scale x, over a standard normal."""
    return models.Flow(transforms.Affine(width, scale=scale), distributions.Normal(width)).double()


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class TestTwoSided:
    reference = torch.arange(1.0, 20.0, dtype=torch.float64)  # 1, ..., 19

    def test_ranks_by_hand(self):
        """At 1 one value is at most 1: p = 2 (1 + 1) / 20; between 3 and 4 it is 2 (1 + 3) / 20; in the middle it is 1."""
        values = torch.tensor([1.0, 3.5, 10.0, 16.5, 19.0, 0.999999])
        expected = -np.log([0.2, 0.4, 1.0, 0.4, 0.2, 0.1])
        torch.testing.assert_close(two_sided(values, self.reference), torch.tensor(expected), atol=1e-5, rtol=0)

    def test_ranks_are_extrapolated_beyond_the_largest_value(self):
        """The outermost tenth is one value, 1 away from the next: mean excess 1."""
        values = torch.tensor([21.0, -3.0, 1e300, math.inf, -math.inf], dtype=torch.float64)
        got = two_sided(values, self.reference)
        torch.testing.assert_close(got[:2], -math.log(0.1) + torch.tensor([2.0, 4.0], dtype=torch.float64))
        assert math.isfinite(got[2])
        assert got[3] == got[4] == math.inf

    def test_scale_and_shift_change_nothing(self):
        values = normal(50) * 3
        reference = normal(30, seed=1).sort().values
        torch.testing.assert_close(two_sided(5 * values - 7, 5 * reference - 7), two_sided(values, reference))
        torch.testing.assert_close(two_sided(-values, -reference.flip(0)), two_sided(values, reference))

    def test_equal_references(self):
        got = two_sided(torch.tensor([2.0, 3.0]), torch.full((9,), 2.0, dtype=torch.float64))
        torch.testing.assert_close(got, torch.tensor([0.0, math.log(5) + 1], dtype=torch.float64))

    def test_alarms_are_as_rare_as_promised(self):
        """p <= a for at most a fraction a of new normal rows: here 2 k / (m + 1) with k = 5, m = 199 is 5 percent."""
        rates = []
        for seed in range(200):
            score = two_sided(normal(50, seed=seed), normal(199, seed=1000 + seed).sort().values)
            rates.append((score >= -math.log(0.05) - 1e-12).double().mean())
        assert abs(float(np.mean(rates)) - 0.05) < 0.01

    def test_statistic_of_several_columns_is_refused(self):
        with pytest.raises(ConfigError, match="DoSE"):
            scores.TwoSided(standard(2))  # pyright: ignore[reportArgumentType]


class TestTypicality:
    def test_against_the_formula(self):
        x, reference, model = normal(20, 3), normal(100, 3, seed=1), standard(3)
        surprise = -torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(1)
        entropy = -torch.distributions.Normal(0.0, 1.0).log_prob(reference).sum(1).mean()
        got = scores.Typicality(model).fit(reference)(x)
        torch.testing.assert_close(got, (surprise - entropy).abs())

    def test_a_mode_is_untypical_in_high_dimension(self):
        model, reference = standard(200), normal(300, 200, seed=1)
        rows = torch.cat((normal(50, 200), torch.zeros(1, 200)))
        for form in ("absolute", "two-sided"):
            score = scores.Typicality(model, form).fit(reference)(rows)
            assert score.argmax() == 50
        assert scores.Likelihood(model)(rows).argmin() == 50

    def test_reference_that_is_ruled_out(self):
        model = models.Flow(transforms.Logit(2), distributions.Logistic(2))
        with pytest.raises(InputError, match="row 1 of the reference"):
            scores.Typicality(model).fit(torch.tensor([[0.5, 0.5], [2.0, 0.5]]))

    def test_unknown_form(self):
        with pytest.raises(ConfigError, match="form"):
            scores.Typicality(standard(2), "signed")


class TestLatentNorm:
    def test_ranks_of_chi(self):
        """With many reference rows the ranks approach the distribution of the norm under a perfect flow."""
        model, reference = standard(5, scale=0.5), 2 * normal(20_000, 5, seed=1)
        x = 2 * normal(300, 5)
        p = stats.chi2(5).cdf(0.25 * x.square().sum(1).numpy())
        expected = np.minimum(1, 2 * np.minimum(p, 1 - p))
        got = np.exp(-scores.LatentNorm(model).fit(reference)(x).numpy())
        assert np.abs(got - expected).max() < 0.03


class TestMahalanobis:
    def test_against_scikit_learn(self):
        reference = normal(30, 6, seed=1) @ normal(6, 6, seed=2) + 3
        x = normal(10, 6)
        fitted = LedoitWolf().fit(reference.numpy())
        got = scores.LatentMahalanobis(standard(6)).fit(reference)(x)
        np.testing.assert_allclose(got.square().numpy(), fitted.mahalanobis(x.numpy()), rtol=1e-9)

    @pytest.mark.parametrize(
        "reference", [torch.ones(5, 3), torch.ones(5, 1), torch.cat((normal(9, 2), torch.ones(9, 1)), 1)]
    )
    def test_directions_without_spread(self, reference):
        score = scores.LatentMahalanobis(standard(reference.shape[1])).fit(reference)
        near, far = score(reference[:1].double()), score(reference[:1].double() + 1e3)
        assert torch.isfinite(near).all()
        assert torch.isfinite(far).all()
        assert far > near

    def test_one_row_is_too_few(self):
        with pytest.raises(InputError, match="two reference rows"):
            scores.LatentMahalanobis(standard(2)).fit(torch.zeros(1, 2))


class TestNeighbors:
    @pytest.mark.parametrize("k", [1, 5])
    def test_against_scikit_learn(self, k):
        reference, x = normal(60, 4, seed=1) + 100, normal(20, 4) + 100
        distance, _ = NearestNeighbors(n_neighbors=k).fit(reference.numpy()).kneighbors(x.numpy())
        np.testing.assert_allclose(scores.Neighbors(k).fit(reference)(x).numpy(), distance[:, -1], atol=1e-6)
        latent = scores.LatentNeighbors(standard(4, scale=3.0), k).fit(reference)(x)
        np.testing.assert_allclose(latent.numpy(), 3 * distance[:, -1], atol=1e-5)

    def test_units_of_each_column(self):
        """Standard deviations of the reference are 1 and 1000; the constant column counts as it is."""
        reference = torch.tensor([[1.0, 1000.0, 7.0], [-1.0, -1000.0, 7.0]])
        score = scores.Neighbors(1, standardize=True).fit(reference)
        x = torch.tensor([[3.0, 1000.0, 7.0], [1.0, 4000.0, 7.0], [1.0, 1000.0, 9.0]])
        torch.testing.assert_close(score(x), torch.tensor([2.0, 3.0, 2.0], dtype=torch.float64))

    def test_errors_of_arguments(self):
        with pytest.raises(ConfigError, match="k must"):
            scores.Neighbors(0)
        with pytest.raises(InputError, match="k=4 reference rows; got 3"):
            scores.Neighbors(4).fit(torch.zeros(3, 2))
        with pytest.raises(InputError, match="row 1"):
            scores.Neighbors(1).fit(torch.tensor([[0.0], [math.inf]]))
        with pytest.raises(InputError, match="rows of 2 values"):
            scores.Neighbors(1).fit(torch.zeros(3, 2))(torch.zeros(3, 4))


class TestDependence:
    def test_blocks_of_a_multi_scale_flow(self):
        """8 x 8 squeezed to 4 x 4 x 4, of which 2 channels leave; then 8 x 2 x 2, which all stay."""
        model = models.Glow((1, 8, 8), scales=2, layers=1, hidden=(4,))
        assert latent_blocks(model.chain, model.shape) == [(8, 2, 2), (2, 4, 4)]
        assert latent_blocks(models.ImageNICE(shape=(1, 3, 3)).chain, (1, 3, 3)) == [(1, 3, 3)]
        assert latent_blocks(models.VAE((1, 6, 6), latent=2, hidden=(8,)).chain, (1, 6, 6)) == [(2,)]
        assert latent_blocks(models.NSF(4).chain, (4,)) == [(4,)]

    def test_correlation_by_hand(self):
        """Vector 1, 2, -1: (2 - 2) / ...; image: pairs side by side (1, 2), (3, 4), above (1, 3), (2, 4)."""
        from pushforward.detection.scores.dependence import neighbor_correlation

        z = torch.tensor([[1.0, 2.0, -3.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
        got = neighbor_correlation(z, [(3,)])
        torch.testing.assert_close(got, torch.tensor([(2 - 6) / ((5 + 13) / 2), 1.0, 0.0]))
        image = torch.tensor([[1.0, 2.0, 3.0, 4.0, 9.0]])
        got = neighbor_correlation(image, [(1, 2, 2), (1,)])
        torch.testing.assert_close(got, torch.tensor([(2 + 12 + 3 + 8) / ((5 + 25 + 10 + 20) / 2)]))

    def test_it_detects_dependence_that_the_norm_does_not(self):
        """Rows of an AR(1) process of unit variance have the norm of independent ones, in the mean."""
        reference, independent = normal(300, 64, seed=1), normal(50, 64)
        smooth = independent.clone()
        for k in range(1, 64):
            smooth[:, k] = 0.6 * smooth[:, k - 1] + 0.8 * independent[:, k]
        score = scores.LatentDependence(standard(64)).fit(reference)
        assert score(smooth).median() > 2.5 > 1.5 > score(independent).median()
        norm = scores.LatentNorm(standard(64)).fit(reference)
        assert norm(smooth).median() < 1.5

    def test_no_neighbors(self):
        with pytest.raises(ConfigError, match="neighbors"):
            scores.LatentDependence(standard(1))


@pytest.mark.parametrize(
    "make",
    [
        scores.Typicality,
        scores.LatentNorm,
        scores.LatentMahalanobis,
        scores.LatentNeighbors,
        scores.LatentDependence,
        scores.InputComplexity,
        scores.LikelihoodPath,
        scores.HierarchicalRatio,
        lambda thing: scores.LikelihoodRatio(thing, standard(2)),
        lambda thing: scores.GeneralModelRatio(standard(2), thing),
        scores.EnsembleStd,
    ],
)
def test_arguments_that_are_not_models(make):
    with pytest.raises(ConfigError, match="Normal"):
        make(distributions.Normal(2))
