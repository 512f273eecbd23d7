"""Scores of several models: identities, and small cases by hand."""

import math

import numpy as np
import pytest
import torch
from scipy import special, stats

from pushforward import distributions, models, transforms
from pushforward.detection import scores
from pushforward.errors import ConfigError, KindError

MEANS = (0.0, 0.5, -1.0, 3.0)
ALL = [
    scores.WAIC,
    scores.EnsembleLikelihood,
    scores.Disagreement,
    scores.EnsembleEntropy,
    scores.EnsembleStd,
    scores.EnsembleTypicality,
]


def members(means=MEANS) -> list[models.Model]:
    """N(mean, 1) in two dimensions."""
    return [models.Flow(transforms.Affine(2, shift=-mean), distributions.Normal(2)).double() for mean in means]


X = torch.randn(30, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2
LOGS = np.array([stats.norm(mean).logpdf(X.numpy()).sum(1) for mean in MEANS])


class TestFormulas:
    def test_log_likelihoods(self):
        np.testing.assert_allclose(scores.EnsembleStd(*members()).log_likelihoods(X), LOGS, rtol=1e-10)

    def test_waic(self):
        np.testing.assert_allclose(scores.WAIC(*members())(X), LOGS.var(0) - LOGS.mean(0), rtol=1e-10)
        got = scores.WAIC(*members(), weight=2.5, form="std")(X)
        np.testing.assert_allclose(got, 2.5 * LOGS.std(0) - LOGS.mean(0), rtol=1e-10)

    def test_likelihood_is_that_of_the_mixture(self):
        got = scores.EnsembleLikelihood(*members())(X)
        np.testing.assert_allclose(got, math.log(4) - special.logsumexp(LOGS, 0), rtol=1e-10)
        torch.testing.assert_close(got, -models.Ensemble(*members()).log_prob(X))

    @pytest.mark.parametrize("temperature", [1.0, 7.0])
    def test_weights(self, temperature):
        weights = special.softmax(LOGS / temperature, 0)
        got = scores.Disagreement(*members(), temperature=temperature)(X)
        np.testing.assert_allclose(got, -1 / (weights**2).sum(0), rtol=1e-10)
        got = scores.EnsembleEntropy(*members(), temperature=temperature)(X)
        np.testing.assert_allclose(got, -stats.entropy(weights, axis=0), rtol=1e-10, atol=1e-12)

    def test_typicality(self):
        reference = X.flip(0)[:20] + 0.3
        center = np.mean([stats.norm(mean).logpdf(reference.numpy()).sum(1) for mean in MEANS])
        got = scores.EnsembleTypicality(*members()).fit(reference)(X)
        np.testing.assert_allclose(got, np.abs(LOGS.mean(0) - center), rtol=1e-10, atol=1e-12)
        expected = scores.TwoSided(scores.WAIC(*members(), weight=0.0)).fit(reference)(X)
        torch.testing.assert_close(scores.EnsembleTypicality(*members(), form="two-sided").fit(reference)(X), expected)


class TestIdentities:
    def test_waic_is_the_mean_less_the_squared_spread(self):
        flows = members()
        waic, mean, std = (
            score(X) for score in (scores.WAIC(*flows), scores.WAIC(*flows, weight=0), scores.EnsembleStd(*flows))
        )
        torch.testing.assert_close(waic - mean, std.square())

    def test_order_of_the_effective_numbers(self):
        """1 <= D <= exp(entropy) <= M: Renyi's entropies fall with their order."""
        flows = members()
        number, entropy = -scores.Disagreement(*flows)(X), -scores.EnsembleEntropy(*flows)(X)
        assert (number >= 1).all()
        assert (number <= entropy.exp() + 1e-12).all()
        assert (entropy.exp() <= 4 + 1e-12).all()
        assert (entropy.exp() - number).max() > 0.01

    def test_equal_members(self):
        flows = members((0.3, 0.3, 0.3))
        torch.testing.assert_close(scores.Disagreement(*flows)(X), torch.full((30,), -3.0, dtype=torch.float64))
        torch.testing.assert_close(scores.EnsembleEntropy(*flows)(X), torch.full((30,), -math.log(3)).double())
        torch.testing.assert_close(scores.EnsembleStd(*flows)(X), torch.zeros(30, dtype=torch.float64))
        alone = scores.Likelihood(flows[0])(X)
        for score in (scores.WAIC(*flows), scores.EnsembleLikelihood(*flows)):
            torch.testing.assert_close(score(X), alone)

    def test_a_constant_does_not_move_the_spread(self):
        """Twice the data with an extra log 2 for each coordinate in all members."""
        wide = [
            models.Flow(transforms.Chain(transforms.Affine(2, scale=2.0), flow.chain), flow.base).double()
            for flow in members()
        ]
        torch.testing.assert_close(scores.EnsembleStd(*wide)(X / 2), scores.EnsembleStd(*members())(X))
        torch.testing.assert_close(scores.EnsembleEntropy(*wide)(X / 2), scores.EnsembleEntropy(*members())(X))


@pytest.mark.parametrize("kind", ALL)
class TestMembers:
    def test_an_ensemble_is_its_members(self, kind):
        flows = members()
        expected = kind(*flows).fit(X)(X)
        torch.testing.assert_close(kind(models.Ensemble(*flows)).fit(X)(X), expected)
        scaled = models.Flow(transforms.Affine(2, scale=0.5), models.Ensemble(*flows)).double()
        by_hand = [
            models.Flow(transforms.Chain(transforms.Affine(2, scale=0.5), flow.chain), flow.base).double()
            for flow in flows
        ]
        torch.testing.assert_close(kind(scaled).fit(X)(X), kind(*by_hand).fit(X)(X))

    def test_one_model_is_not_an_ensemble(self, kind):
        with pytest.raises(ConfigError, match="two models"):
            kind(members()[0])

    def test_members_must_match(self, kind):
        with pytest.raises(ConfigError, match="shape"):
            kind(models.NICE(2), models.NICE(3))
        with pytest.raises(KindError, match="measure"):
            kind(
                models.ImageNICE(shape=(1, 2, 2)),
                models.TarFlow((1, 2, 2), 1, None, blocks=1, width=8, layers=1, heads=2),
            )

    def test_a_row_that_one_member_rules_out(self, kind):
        half = models.Flow(
            transforms.Chain(transforms.Inverse(transforms.Exp(2))), distributions.Normal(2)
        ).double()  # log-normal
        score = kind(half, *members()).fit(X.abs() + 0.1)
        got = score(torch.tensor([[1.0, 1.0], [-1.0, 1.0]], dtype=torch.float64))
        assert not torch.isnan(got).any()
        if kind not in (scores.Disagreement, scores.EnsembleEntropy, scores.EnsembleLikelihood):
            assert got[1] == math.inf  # their mean and spread are infinite


def test_members_get_the_same_noise():
    """Two models that differ by a constant only: with noise of their own, differences would vary from row to row."""
    torch.manual_seed(1)
    first = models.VAE((1, 3, 3), 2, hidden=(8,), levels=4)
    chain = first.chain.transforms[0]
    second = models.Flow(chain, distributions.Normal(2, trainable=True))  # pyright: ignore[reportArgumentType]
    with torch.no_grad():
        second.base.log_scale.add_(1e-3)  # pyright: ignore[reportOperatorIssue, reportCallIssue]
    x = torch.randint(4, (40, 1, 3, 3))
    logs = scores.EnsembleStd(first, second).log_likelihoods(x)
    assert (logs[0] - logs[1]).abs().max() < 0.02
    assert logs[0].std() > 0.1


def test_impossible_settings():
    for make in (
        lambda: scores.WAIC(*members(), form="mean"),
        lambda: scores.WAIC(*members(), weight=-1.0),
        lambda: scores.Disagreement(*members(), temperature=0.0),
        lambda: scores.EnsembleEntropy(*members(), temperature=math.inf),
        lambda: scores.EnsembleTypicality(*members(), form="signed"),
        lambda: scores.EnsembleStd(*members(), distributions.Normal(2)),  # pyright: ignore[reportArgumentType]
        lambda: scores.EnsembleStd(),
    ):
        with pytest.raises(ConfigError):
            make()
