"""The terms of log p kept apart, and densities over statistics, beside independent code."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.covariance import LedoitWolf
from sklearn.mixture import GaussianMixture

from pushforward import distributions, io, models, transforms
from pushforward.detection import scores
from pushforward.errors import ConfigError, InputError
from pushforward.likelihood import Manifold

MODELS = {
    "flow of vectors": lambda: models.NSF(3, layers=1, hidden=(8, 8)),
    "image, one scale": lambda: models.ImageNICE(shape=(1, 4, 4), layers=2, hidden=(8,)),
    "image, three scales": lambda: models.Glow((1, 8, 8), scales=3, layers=1, hidden=(4,)),
    "image, checkerboard scales": lambda: models.ImageRealNVP(shape=(1, 8, 8), layers=2, hidden=(4,)),
    "pixels": lambda: models.PixelCNN((1, 4, 4), filters=6, layers=2, first_kernel_size=3),
    "latent variable": lambda: models.VAE((1, 4, 4), 2, hidden=(8,)),
    "latent variable of a flow": lambda: models.VAE(3, 2, hidden=(8,), posterior="iaf", posterior_hidden=(4,)),
    "mixture": lambda: models.Flow(transforms.Standardize(3), models.Ensemble(models.NICE(3), models.RealNVP(3))),
    "two latent variables": lambda: models.Flow(
        transforms.Chain(
            transforms.Variational(4, 3, hidden=(8,)),
            transforms.Affine(3, scale=2.0),
            transforms.Variational(3, 2, hidden=(8,)),
        ),
        distributions.Normal(2),
    ),
}


def stirred(name: str) -> models.Model:
    model = MODELS[name]().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def rows(model: models.Model, count: int = 5) -> torch.Tensor:
    if model.measure.name == "Counting":
        return torch.randint(256, (count, *model.shape)).double()
    return torch.randn(count, *model.shape, dtype=torch.float64)


@pytest.mark.parametrize("name", MODELS)
def test_terms_add_up_to_the_likelihood(name):
    model = stirred(name)
    x, path = rows(model), scores.LikelihoodPath(model)
    values = path.values(x)
    assert values.shape == (5, len(path.names))
    result = model.evaluate(x)
    torch.testing.assert_close(values[:, : path.terms].sum(1), result.value.detach(), rtol=1e-10, atol=1e-8)


def test_draws_are_those_of_evaluate():
    """Averages over draws are the averages of the terms that evaluate gives."""
    model = stirred("latent variable")
    x = rows(model)
    expected = sum(model.evaluate(x, samples=7).terms.values())
    path = scores.LikelihoodPath(model, samples=7)
    torch.testing.assert_close(path.values(x)[:, : path.terms].sum(1), expected, rtol=1e-10, atol=1e-8)


class TestScales:
    def test_each_scale_by_hand(self):
        """Channels 0, 1 stay, doubled (log 2 for each of 4 coordinates); then channel 1 leaves and channel 0 is tripled."""
        inner = transforms.Chain(
            transforms.Affine((2, 2, 1), scale=2.0),
            transforms.FactorOut((2, 2, 1), transforms.Affine((1, 2, 1), scale=3.0)),
        )
        chain = transforms.Chain(
            transforms.Permutation((3, 2, 1), order=(2, 1, 0), dim=-3), transforms.FactorOut((3, 2, 1), inner)
        )
        path = scores.LikelihoodPath(models.Flow(chain, distributions.Logistic(6)).double())
        assert path.names == (
            *("volume 0", "volume 1", "volume 2", "base 0", "base 1", "base 2"),
            *("square 0", "square 1", "square 2"),
        )
        x = torch.randn(4, 3, 2, 1, dtype=torch.float64)
        left = [x[:, 0], 2 * x[:, 1], 6 * x[:, 2]]
        logistic = [torch.from_numpy(stats.logistic.logpdf(part.flatten(1).numpy())).sum(1) for part in left]
        volumes = [torch.full((4,), v, dtype=torch.float64) for v in (0.0, 4 * math.log(2), 2 * math.log(3))]
        squares = [part.flatten(1).square().sum(1) for part in left]
        torch.testing.assert_close(path.values(x), torch.stack((*volumes, *logistic, *squares), 1))

    def test_preprocessing_is_a_separate_term(self):
        """-log 256 for each of 16 pixels by dequantization; nothing else before the couplings of NICE."""
        path = scores.LikelihoodPath(models.ImageNICE(shape=(1, 4, 4), layers=2, hidden=(4,)))
        assert path.names == ("elementwise", "volume", "base", "square")
        values = path.values(torch.randint(256, (3, 1, 4, 4)))
        torch.testing.assert_close(values[:, 0], torch.full((3,), -16 * math.log(256), dtype=torch.float64))

    def test_latent_variables(self):
        model = stirred("latent variable")
        x, path = rows(model), scores.LikelihoodPath(model)
        assert path.names == (*("reconstruction", "posterior", "base", "error", "latent mean", "latent scale"),)
        drawn = model.chain.transforms[-1].draw(x, None)  # pyright: ignore[reportCallIssue]
        values = dict(zip(path.names, path.values(x).T, strict=True))
        torch.testing.assert_close(values["latent mean"], drawn.mean.square().sum(1).detach())
        torch.testing.assert_close(values["latent scale"], drawn.log_scale.exp().square().sum(1).detach())
        torch.testing.assert_close(
            values["error"], (x - model.decode(model.encode(x))).square().sum((1, 2, 3)).detach()
        )

    def test_distance_to_a_manifold(self):
        class Plane(transforms.Transform):
            """The first two coordinates; the third is the distance."""

            def encode(self, x, context=None, *, noise=None):
                return transforms.Step(x[..., :2], self.zero_log_det(x), x[..., 2] ** 2)

            def decode(self, z, context=None, *, noise=None):
                return torch.cat((z, torch.zeros_like(z[..., :1])), -1)

            def measure(self, latent):
                return Manifold(2, 3)

        path = scores.LikelihoodPath(models.Flow(Plane(3, 2), distributions.Normal(2)))
        assert path.names == ("volume", "base", "residual")
        x = torch.tensor([[0.0, 1.0, 2.0], [1.0, 1.0, -3.0]])
        assert path.values(x)[:, 2].tolist() == [4.0, 9.0]

    def test_context_is_refused(self):
        with pytest.raises(ConfigError, match="context"):
            scores.LikelihoodPath(models.NICE(2, context=1))


def test_both_sides_are_detected():
    """Gaussian images: flat gray ones are the likeliest of all, and a wider spread is unlikely; neither is typical."""
    chain = transforms.Chain(
        transforms.UniformDequantize((1, 8, 8)),
        transforms.Affine((1, 8, 8), shift=-4.0, scale=8.0),
        transforms.Flatten((1, 8, 8)),
    )
    model = models.Flow(chain, distributions.Normal(64))
    draw = 128 + 32 * torch.randn(400, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    x = draw.round().clamp(0, 255)
    flat, wild = torch.full((1, 1, 8, 8), 128.0), (128 + 2 * (x[300:301] - 128)).clamp(0, 255)
    reference, normal = x[:300], x[300:]
    assert scores.Likelihood(model)(flat) < scores.Likelihood(model)(normal).min()
    likelihood = scores.LikelihoodPath(model)
    for score in (
        *(scores.DoSE(likelihood, density=density) for density in ("gaussian", "kde", "gmm")),
        scores.DoSE(likelihood, scores.InputComplexity(model, ("zlib",), form="fitted")),
        scores.Typicality(model),
        scores.LatentNorm(model),
    ):
        score.fit(reference)
        assert torch.minimum(score(flat), score(wild)) > score(normal).max()


class Columns(scores.Statistic):
    """The numbers of a row themselves."""

    @property
    def names(self):
        return ("a", "b")

    def _values(self, x):
        return x


class TestDoSE:
    reference = torch.randn(150, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) @ torch.tensor(
        [[3.0, 1.0], [0.0, 0.2]], dtype=torch.float64
    ) + 5  # fmt: skip
    x = 5 + 2 * torch.randn(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def standardized(self):
        mean, std = self.reference.mean(0), self.reference.std(0, correction=0)
        return ((self.reference - mean) / std).numpy(), ((self.x - mean) / std).numpy()

    def test_gaussian(self):
        reference, x = self.standardized()
        expected = -stats.multivariate_normal(np.zeros(2), LedoitWolf().fit(reference).covariance_).logpdf(x)
        np.testing.assert_allclose(scores.DoSE(Columns()).fit(self.reference)(self.x).numpy(), expected, rtol=1e-9)

    def test_kde(self):
        """Against SciPy's estimate of each column, at Silverman's bandwidth."""
        reference, x = self.standardized()
        expected = np.zeros(len(x))
        for points, column in zip(reference.T, x.T, strict=True):
            quarter, three = np.quantile(points, [0.25, 0.75])
            width = 0.9 * min(points.std(), (three - quarter) / 1.34) * len(points) ** -0.2
            expected -= stats.gaussian_kde(points, width / points.std(ddof=1)).logpdf(column)
        np.testing.assert_allclose(
            scores.DoSE(Columns(), density="kde").fit(self.reference)(self.x), expected, rtol=1e-9
        )

    def test_gmm(self):
        reference, x = self.standardized()
        mixture = GaussianMixture(2, reg_covar=1e-2, max_iter=200, random_state=3).fit(reference)
        score = scores.DoSE(Columns(), density="gmm", components=2, seed=3).fit(self.reference)
        np.testing.assert_allclose(score(self.x), -mixture.score_samples(x), rtol=1e-9)

    @pytest.mark.parametrize("density", ["gaussian", "kde", "gmm"])
    def test_units_do_not_matter(self, density):
        units = torch.tensor([1e-6, 1e9], dtype=torch.float64)
        plain = scores.DoSE(Columns(), density=density).fit(self.reference)
        scaled = scores.DoSE(Columns(), density=density).fit(self.reference * units)
        torch.testing.assert_close(scaled(self.x * units), plain(self.x), rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize("density", ["gaussian", "kde", "gmm"])
    def test_a_column_that_never_changed(self, density):
        """It says nothing while it keeps its value, and everything when it does not."""
        reference = self.reference.clone()
        reference[:, 1] = 7.25
        score = scores.DoSE(Columns(), density=density).fit(reference)
        x = reference[:3].clone()
        calm = score(x)
        x[1, 1] = 1000.0
        moved = score(x)
        assert torch.equal(moved[[0, 2]], calm[[0, 2]])
        assert moved[1] > calm.max() + 10

    def test_few_rows_make_few_components(self):
        score = scores.DoSE(Columns(), density="gmm", components=5).fit(self.reference[:24])
        assert len(score.log_weights) == 2  # five rows a column and component

    def test_one_model_in_several_statistics(self):
        """The shared weights go through a file, and come back right for each."""
        model = models.NICE(2, layers=2, hidden=(8,))
        score = scores.DoSE(scores.LikelihoodPath(model), scores.Typicality(model), scores.LatentNorm(model))
        score.fit(self.reference)
        assert score.column_names == (
            *("LikelihoodPath.elementwise", "LikelihoodPath.volume", "LikelihoodPath.base", "LikelihoodPath.square"),
            *("Typicality.Typicality", "LatentNorm.LatentNorm"),
        )
        description, tensors = io.pack(score)
        again = io.unpack(description, tensors)
        assert torch.equal(again(self.x), score(self.x))  # pyright: ignore[reportCallIssue]

    def test_ranked_statistics_return_raw_values(self):
        score = scores.DoSE(scores.Brightness(), scores.TwoSided(scores.CodeLength()), scores.Variance())
        x = torch.randint(256, (30, 1, 4, 4)).double()
        columns = score.fit(x).columns(x)
        mean, bits, variance = x.mean((1, 2, 3)), scores.CodeLength().values(x)[:, 0], x.var((1, 2, 3), correction=0)
        torch.testing.assert_close(columns, torch.stack((mean, bits, variance), 1))

    def test_needs_are_joined(self):
        assert scores.DoSE(Columns(), scores.CodeLength()).needs == {"forward", "compressor"}

    def test_errors_of_arguments(self):
        for bad in ((), (models.NICE(2),)):
            with pytest.raises(ConfigError, match="statistics"):
                scores.DoSE(*bad)
        with pytest.raises(ConfigError, match="density"):
            scores.DoSE(Columns(), density="svm")
        with pytest.raises(InputError, match="two reference rows"):
            scores.DoSE(Columns()).fit(self.reference[:1])
        with pytest.raises(InputError, match="row 0"):
            scores.DoSE(Columns()).fit(torch.full((3, 2), math.inf))


@pytest.mark.parametrize("density", ["gaussian", "kde", "gmm"])
def test_one_row_is_refused_and_any_integer_is_a_seed(density):
    score = scores.DoSE(scores.LikelihoodPath(models.RealNVP(features=2, hidden=(8,))), density=density, seed=-1)
    with pytest.raises(InputError, match="at least two reference rows"):
        score.fit(torch.randn(1, 2))
    assert score.fit(torch.randn(30, 2))(torch.randn(3, 2)).isfinite().all()
