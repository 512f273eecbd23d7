"""Scores agree with their formulas computed by other means, depend on one row alone, and rank what they should."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from scipy import special, stats
from sklearn.covariance import EmpiricalCovariance
from sklearn.neighbors import NearestNeighbors
from torch import Tensor, nn

from pushforward.detection import auroc
from pushforward.detection import network as scores
from pushforward.detection.network import Combined, Gathered, NetworkReader, Reading
from pushforward.detection.network.scores import flow as flow_module
from pushforward.detection.network.scores.disagreement import mutual_information
from pushforward.detection.network.scores.gaussian import relative_distance, relative_form, whitening
from pushforward.detection.network.scores.openmax import fit_weibull
from pushforward.detection.network.scores.temperature import fit_temperature
from pushforward.errors import ConfigError, InputError


@pytest.fixture
def double_by_default():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def setting() -> tuple[nn.Module, Gathered, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    centers = 2.5 * torch.randn(3, 6)
    y = torch.randint(0, 3, (600,))
    x = centers[y] + torch.randn(600, 6)
    net = nn.Sequential(
        nn.Linear(6, 10), nn.Tanh(), nn.Dropout(0.3), nn.Linear(10, 8), nn.Tanh(), nn.Linear(8, 3)
    ).eval()
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(60):
        loss = nn.functional.cross_entropy(net(x[:400]), y[:400])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    reader = NetworkReader(net)
    grams = scores.GramMatrices(powers=2)
    reader.read(x[:2])
    gathered = Gathered(3, reader.layers, reader.weight_and_bias(), 10_000, 0)
    for start in range(0, 400, 64):
        reading = reader.read(x[start : min(start + 64, 400)], maps=True)
        gathered.add(reading, y[start : start + len(reading)], grams.observe(reading))
    return net, gathered, x[:400], y[:400], torch.cat((x[400:440], 4 * torch.randn(20, 6)))


def parts(setting) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Features and logits of the training rows and of the new rows, by calling the network's parts."""
    net, _, x, _, new = setting
    with torch.no_grad():
        z, z_new = net[:5](x), net[:5](new)
        return z.double().numpy(), net[5](z).double().numpy(), z_new.double().numpy(), net[5](z_new).double().numpy()


def score_of(score, setting) -> np.ndarray:
    net, gathered, _, _, new = setting
    return score.fit(gathered)(NetworkReader(net, layers=list(gathered.layers)).read(new, maps=True)).numpy()


def test_scores_of_logits(setting):
    f = parts(setting)[3]
    p = special.softmax(f, 1)
    assert score_of(scores.MaxSoftmax(), setting) == pytest.approx(-p.max(1), rel=1e-6)
    assert score_of(scores.MaxSoftmax(5.0), setting) == pytest.approx(-special.softmax(f / 5, 1).max(1), rel=1e-6)
    assert score_of(scores.MaxLogit(), setting) == pytest.approx(-f.max(1), rel=1e-6)
    assert score_of(scores.Energy(2.0), setting) == pytest.approx(-2 * special.logsumexp(f / 2, axis=1), rel=1e-6)
    assert score_of(scores.Entropy(), setting) == pytest.approx(stats.entropy(p, axis=1), rel=1e-4)
    assert score_of(scores.GEN(0.3), setting) == pytest.approx((p**0.3 * (1 - p) ** 0.3).sum(1), rel=1e-4)
    top = np.sort(p, 1)[:, -2:]
    assert score_of(scores.GEN(0.3, 2), setting) == pytest.approx((top**0.3 * (1 - top) ** 0.3).sum(1), rel=1e-4)
    centered = f - f.mean(1, keepdims=True)
    expected = -centered.max(1) / np.linalg.norm(centered, 3, axis=1)
    assert score_of(scores.MaxLogit(3.0), setting) == pytest.approx(expected, rel=1e-5)


def test_kl_matching(setting):
    _, f, _, f_new = parts(setting)
    p, q = special.softmax(f, 1), special.softmax(f_new, 1)
    templates = [p[f.argmax(1) == k].mean(0) for k in range(3)]
    expected = np.min([special.rel_entr(q, t).sum(1) for t in templates], 0)
    assert score_of(scores.KLMatching(), setting) == pytest.approx(expected, rel=1e-4, abs=1e-8)


def test_temperature_is_the_minimum():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4000, 5, generator=generator, dtype=torch.float64)
    torch.manual_seed(1)  # the stream of the logits is that of seed 0
    labels = torch.distributions.Categorical(logits=logits / 2.5).sample()
    t = fit_temperature(logits, labels)
    assert t == pytest.approx(2.5, rel=0.1)
    losses = [float(nn.functional.cross_entropy(logits / value, labels)) for value in (0.999 * t, t, 1.001 * t)]
    assert losses[1] == min(losses)
    assert fit_temperature(logits, logits.argmax(1)) == pytest.approx(
        0.01, rel=0.01
    )  # always right: as small as it may be


def test_weibull_is_scipys():
    values = stats.weibull_min.rvs(3.0, scale=2.0, size=300, random_state=0)
    shape, _, scale = stats.weibull_min.fit(values, floc=0)
    assert fit_weibull(torch.from_numpy(values)) == pytest.approx((shape, scale), rel=1e-3)
    assert all(map(math.isfinite, fit_weibull(torch.full((9,), 3.0))))


def test_openmax_of_a_hand_made_case():
    score = scores.OpenMax(tail=5, alpha=2)
    score.means = torch.tensor([[4.0, 0.0], [0.0, 4.0]], dtype=torch.float64)
    score.shapes, score.scales = torch.full((2,), 2.0).double(), torch.full((2,), 10_000.0).double()
    score.smallest, score.fitted = torch.zeros(2).double(), True
    logits = torch.tensor([[3.0, 1.0]])
    w = [1 - math.exp(-(((math.dist((3, 1), mean) + 10_000) / 10_000) ** 2)) for mean in ((4, 0), (0, 4))]
    lost = [3 * w[0] * 1.0, 1 * w[1] * 0.5]
    revised = [sum(lost), 3 - lost[0], 1 - lost[1]]
    found = score(Reading(None, torch.zeros(1, 2), logits))
    assert float(found) == pytest.approx(special.softmax(revised)[0], rel=1e-6)


def test_mahalanobis(setting):
    z, _, z_new, _ = parts(setting)
    y = setting[3].numpy()
    centered = np.concatenate([z[y == k] - z[y == k].mean(0) for k in range(3)])
    model = EmpiricalCovariance(assume_centered=True).fit(centered)
    distances = np.stack([model.mahalanobis(z_new - z[y == k].mean(0)) for k in range(3)], 1)
    assert score_of(scores.Mahalanobis(), setting) == pytest.approx(distances.min(1), rel=1e-4)
    assert score_of(scores.RelativeMahalanobis(), setting) == pytest.approx(
        distances.min(1) - EmpiricalCovariance().fit(z).mahalanobis(z_new), rel=1e-3, abs=1e-3
    )
    assert score_of(scores.RelativeMahalanobis(single=True), setting) == pytest.approx(
        score_of(scores.RelativeMahalanobis(), setting), rel=1e-3, abs=1e-2
    )


def test_mahalanobis_of_layers_is_a_sum(setting):
    _, gathered, _, _, _ = setting
    together = scores.LayerMahalanobis(features=True)
    total = score_of(together, setting)
    without = score_of(scores.LayerMahalanobis(features=False), setting)
    assert len(gathered.layers) > 1
    assert total - without == pytest.approx(score_of(scores.Mahalanobis(), setting), rel=1e-6)
    assert score_of(scores.LayerMahalanobis(single=True), setting) == pytest.approx(total, rel=1e-3)


@pytest.mark.parametrize(("k", "single"), [(1, False), (1, True), (4, False)])
def test_neighbors_of_layers_are_a_sum_of_distances(setting, k, single):
    net, gathered, x, _, new = setting
    reader = NetworkReader(net, layers=list(gathered.layers))
    known, rows = reader.read(x).layers, reader.read(new).layers
    expected = np.zeros(len(new))
    for name in gathered.layers:
        z, z_new = known[name].double().numpy(), rows[name].double().numpy()
        units = [part / np.linalg.norm(part, axis=1, keepdims=True).clip(1e-12) for part in (z, z_new)]
        expected += NearestNeighbors(n_neighbors=k).fit(units[0]).kneighbors(units[1])[0][:, -1]
    found = scores.LayerNeighbors(k, rows=10_000, single=single).fit(gathered)(reader.read(new))
    assert found.numpy() == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("make", [scores.Neighbors, scores.LayerNeighbors, scores.ViM, scores.RelativeMahalanobis,
                                  scores.LayerRelativeMahalanobis, scores.LayerMahalanobis])  # fmt: skip
def test_single_precision_follows_the_network(setting, make):
    net, gathered, _, _, new = setting
    arguments = {"k": 2} if "Neighbors" in make.__name__ else {}
    single, double = (make(**arguments, single=which).fit(gathered) for which in (True, False))
    reading = NetworkReader(net, layers=list(gathered.layers)).read(new)
    assert reading.features.dtype == torch.float32
    fast, exact = single.raw(reading), double.raw(reading)
    assert fast.double().numpy() == pytest.approx(exact.double().numpy(), rel=2e-3, abs=2e-2)
    assert not torch.equal(fast.double(), exact.double())
    wide = Reading(None, reading.features.double(), reading.logits, {k: v.double() for k, v in reading.layers.items()})
    assert torch.equal(single.raw(wide), double.raw(wide))


def test_the_stored_rows_of_neighbors_are_of_all_classes_in_data_that_are_sorted_by_class():
    torch.manual_seed(0)
    x, y = torch.randn(900, 4), torch.arange(900) // 300
    reader = NetworkReader(torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval())
    reader.read(x[:2])
    gathered = Gathered(3, reader.layers, reader.weight_and_bias(), 600, 0)
    for part in range(0, 900, 100):
        gathered.add(reader.read(x[part : part + 100]), y[part : part + 100], {})
    counts = gathered.sample["labels"][:90].bincount(minlength=3)  # 30 of each class on average
    assert int(counts.min()) >= 15


def test_relative_mahalanobis_of_layers_is_a_sum_of_differences(setting):
    net, _, x, y, new = setting
    reader = NetworkReader(net, layers=["3", "4"])  # the first layer has more outputs than the network has inputs
    gathered = Gathered(3, reader.layers, None, 1000, 0)
    gathered.add(reader.read(x), y, {})
    known, rows, y = reader.read(x).layers, reader.read(new).layers, y.numpy()
    expected = np.zeros(len(new))
    for name in reader.layers:
        z, z_new = known[name].double().numpy(), rows[name].double().numpy()
        within = np.concatenate([z[y == k] - z[y == k].mean(0) for k in range(3)])
        model = EmpiricalCovariance(assume_centered=True).fit(within)
        classes = np.stack([model.mahalanobis(z_new - z[y == k].mean(0)) for k in range(3)], 1)
        expected += classes.min(1) - EmpiricalCovariance().fit(z).mahalanobis(z_new)
    found = scores.LayerRelativeMahalanobis().fit(gathered)(reader.read(new))
    assert found.numpy() == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_the_relative_form_is_the_difference_of_two_distances():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(300, 6, generator=generator, dtype=torch.float64) * torch.tensor([3.0, 1, 1, 0.1, 1e-4, 0])
    labels = torch.arange(300) % 4
    rows[:, 0] += labels
    moments = scores.ClassMoments()
    moments.add(rows, labels, 4)
    factor, background = whitening(moments.within), whitening(moments.covariance)
    means = (moments.means - moments.mean) @ factor
    new = 5 * torch.randn(50, 6, generator=generator, dtype=torch.float64)  # also where no training row varies
    form = relative_form(factor, means, background)
    within = torch.cdist(new @ factor, means).square().amin(1)
    direct = within - (new @ background).square().sum(1)
    assert ((relative_distance(new, form) - direct).abs() <= 1e-6 * (new @ factor).square().sum(1)).all()
    assert len(form[1]) < 6


def test_vim_without_a_residual_stays_bounded():
    torch.manual_seed(0)
    rows = torch.cat((torch.randn(200, 2).abs(), torch.zeros(200, 4)), 1)  # four dead units
    weight = torch.randn(3, 6, dtype=torch.float64)
    gathered = Gathered(3, (), (weight, torch.zeros(3, dtype=torch.float64)), 1000, 0)
    logits = rows @ weight.float().T
    gathered.add(Reading(None, rows, logits), logits.argmax(1), {})
    score = scores.ViM().fit(gathered)
    known, unknown = (
        score(Reading(None, rows, logits)),
        score(Reading(None, rows + torch.tensor([0.0, 0, 1, 1, 1, 1]), logits)),
    )
    assert torch.allclose(known, scores.Energy()(Reading(None, rows, logits)), atol=1e-3)
    assert (unknown > known + 100).all()


def test_a_unit_that_never_fired_is_far_but_finite():
    gathered = Gathered(1, (), None, 100, 0)
    rows = torch.randn(200, 3) * torch.tensor([1.0, 1.0, 0.0])
    gathered.add(Reading(None, rows), torch.zeros(200, dtype=torch.long), {})
    score = scores.Mahalanobis().fit(gathered)
    near, far = score(Reading(None, torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])))
    assert near < 1
    assert 1e4 < far < 1e8


def test_mixture(setting):
    z, _, z_new, _ = parts(setting)
    y = setting[3].numpy()
    terms = [
        math.log((y == k).mean()) + stats.multivariate_normal(z[y == k].mean(0), np.cov(z[y == k].T, bias=True) + 1e-6 * np.eye(8)).logpdf(z_new)
        for k in range(3)
    ]  # fmt: skip
    assert score_of(scores.Mixture(), setting) == pytest.approx(-special.logsumexp(terms, axis=0), rel=1e-3)


@pytest.mark.parametrize("k", [1, 7])
def test_neighbors(setting, k):
    z, _, z_new, _ = parts(setting)
    unit, unit_new = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (z, z_new))
    expected = NearestNeighbors(n_neighbors=k).fit(unit).kneighbors(unit_new)[0][:, -1]
    assert score_of(scores.Neighbors(k=k), setting) == pytest.approx(expected, abs=1e-6)
    assert score_of(scores.Neighbors(k=k, single=True), setting) == pytest.approx(expected, abs=1e-3)
    plain = NearestNeighbors(n_neighbors=k).fit(z).kneighbors(z_new)[0][:, -1]
    assert score_of(scores.Neighbors(k=k, normalize=False), setting) == pytest.approx(plain, abs=1e-5)


def test_vim(setting):
    net = setting[0]
    z, f, z_new, f_new = parts(setting)
    w, b = net[5].weight.detach().double().numpy(), net[5].bias.detach().double().numpy()
    origin = -np.linalg.pinv(w) @ b
    _, _, axes = np.linalg.svd(z - origin, full_matrices=False)
    residual, residual_new = (np.linalg.norm((rows - origin) @ axes[3:].T, axis=1) for rows in (z, z_new))
    assert score_of(scores.Residual(3), setting) == pytest.approx(residual_new, rel=1e-4)
    alpha = f.max(1).mean() / residual.mean()
    assert score_of(scores.ViM(3), setting) == pytest.approx(
        alpha * residual_new - special.logsumexp(f_new, axis=1), rel=1e-4
    )


def test_she_react_and_gradnorm(setting):
    net, _, _, y, _ = setting
    z, f, z_new, f_new = parts(setting)
    right = f.argmax(1) == y.numpy()
    patterns = np.stack([z[right & (y.numpy() == k)].mean(0) for k in range(3)])
    assert score_of(scores.SHE(), setting) == pytest.approx(
        -(z_new * patterns[f_new.argmax(1)]).sum(1), rel=1e-4, abs=1e-6
    )
    clipped = np.minimum(z_new, np.percentile(z, 90))
    logits = clipped @ net[5].weight.detach().double().numpy().T + net[5].bias.detach().double().numpy()
    assert score_of(scores.ReAct(), setting) == pytest.approx(-special.logsumexp(logits, axis=1), rel=1e-5)
    expected = []
    for row in torch.from_numpy(z_new).float():
        loss = -torch.log_softmax(net[5](row[None]) / 1.5, 1).mean()
        expected.append(-float(torch.autograd.grad(loss, net[5].weight)[0].abs().sum()))
    assert score_of(scores.GradNorm(1.5), setting) == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_mutual_information():
    p = torch.tensor([[[0.9, 0.1]], [[0.1, 0.9]]], dtype=torch.float64)
    expected = math.log(2) + 0.9 * math.log(0.9) + 0.1 * math.log(0.1)
    assert float(mutual_information(p.log())) == pytest.approx(expected)
    assert float(mutual_information(p[:1].expand(4, 1, 2).log())) == pytest.approx(0, abs=1e-12)


def test_dropout_masks_do_not_depend_on_the_batch(setting):
    net, _, _, _, new = setting
    reader, score = NetworkReader(net), scores.MCDropout(5)
    state = torch.random.get_rng_state()
    together = score(reader.read(new))
    assert torch.equal(torch.random.get_rng_state(), state)
    alone = torch.cat([score(reader.read(row[None])) for row in new])
    assert torch.allclose(together, alone, atol=1e-6)
    assert together.max() > 1e-3


@pytest.mark.parametrize("kind", [nn.AlphaDropout, nn.FeatureAlphaDropout])
def test_alpha_dropout_has_the_values_of_training(kind):
    """Every unit is one of the two values that PyTorch's own layer gives it, in the same shares."""
    layer, x = kind(0.3), torch.rand(1, 400, generator=torch.Generator().manual_seed(0))
    x = x[..., None].expand(1, 400, 2) if kind is nn.FeatureAlphaDropout else x
    net = nn.Sequential(layer, nn.Flatten(), nn.Linear(x[0].numel(), 3)).eval()
    seen: list[Tensor] = []
    net[1].register_forward_pre_hook(lambda module, args: seen.append(args[0].detach().clone()))
    scores.MCDropout(40)(NetworkReader(net).read(x))
    found = torch.stack([each for each in seen if not torch.equal(each, x)])  # without the pass of the reader
    torch.manual_seed(0)
    trained = torch.stack([layer.train()(x) for _ in range(40)])
    dropped = trained.min()  # the same value for all dropped units
    at = torch.isclose(found, dropped, rtol=1e-5)
    assert at.double().mean() == pytest.approx(0.3, abs=0.02)
    torch.testing.assert_close(
        found[~at], trained.amax(0).expand_as(found)[~at]
    )  # the value of a unit that is kept is the larger one
    if kind is nn.FeatureAlphaDropout:
        assert torch.equal(at[..., 0], at[..., 1])


def test_dropout_masks_do_not_depend_on_the_default_type(setting, double_by_default):
    net, _, _, _, new = setting
    found = scores.MCDropout(5)(NetworkReader(net).read(new))
    torch.set_default_dtype(torch.float32)
    assert torch.equal(found, scores.MCDropout(5)(NetworkReader(net).read(new)))


def test_held_out_rows_do_not_depend_on_the_default_type(setting, double_by_default, monkeypatch):
    class Seen(Exception):
        pass

    def seen(flow, rows, *, validation, **options):
        raise Seen(len(rows), rows.sum(), validation.sum())

    monkeypatch.setattr(flow_module, "fit", seen)
    found = []
    for dtype in (torch.float64, torch.float32):
        torch.set_default_dtype(dtype)
        grams = score_of(scores.GramMatrices(powers=2), setting)
        with pytest.raises(Seen) as caught:
            scores.FeatureFlow(conditional=False).fit(setting[1])
        found.append((grams.tolist(), caught.value.args))
    assert found[0] == found[1]


def test_an_ensemble_of_equal_networks_agrees(setting):
    net, _, _, _, new = setting
    reading = NetworkReader(net).read(new)
    assert scores.DeepEnsemble([net, net])(reading).abs().max() < 1e-9
    torch.manual_seed(5)
    other = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    log_p = torch.stack([torch.log_softmax(n(new).double(), 1) for n in (net, other)])
    assert torch.allclose(scores.DeepEnsemble([other])(reading), mutual_information(log_p), atol=1e-6)
    with pytest.raises(ConfigError, match="outputs of different shapes"):
        scores.DeepEnsemble([nn.Linear(6, 4)])(reading)


def test_the_density_of_a_feature_flow_integrates_to_one():
    torch.manual_seed(0)
    gathered = Gathered(1, (), None, 1000, 0)
    rows = torch.randn(400, 2) @ torch.tensor([[1.0, 0.4], [0.0, 0.3]]) + 2
    gathered.add(Reading(None, rows), torch.zeros(400, dtype=torch.long), {})
    for size in (2, 64):
        score = scores.FeatureFlow(conditional=False, size=size, max_steps=60).fit(gathered)
        axis = torch.linspace(-6, 10, 400)
        grid = torch.cartesian_prod(axis, axis)
        mass = torch.exp(-score(Reading(None, grid))).sum() * (16 / 399) ** 2
        assert float(mass) == pytest.approx(1, abs=0.02)


def test_forms_of_a_feature_flow(setting):
    net, gathered, _, _, new = setting
    reading = NetworkReader(net).read(new)
    options = {"conditional": False, "max_steps": 30}
    plain, typical, path = (
        scores.FeatureFlow(form=form, **options).fit(gathered) for form in ("likelihood", "typicality", "path")
    )
    assert torch.allclose(plain(reading), -plain.log_density(reading))
    mean = -typical.center.sum()
    assert torch.allclose(typical(reading), (plain(reading) - mean).abs(), atol=1e-6)
    assert (path(reading) >= 0).all()
    conditional = scores.FeatureFlow(max_steps=30).fit(gathered)
    moved = Reading(None, reading.features, reading.logits.roll(1, 1))
    assert not torch.allclose(conditional(reading), conditional(moved))  # another predicted class, another density
    assert torch.allclose(plain(reading), plain(moved))


ALL = {
    **{name: getattr(scores, name) for name in scores.SCORES if name not in ("External", "DeepEnsemble", "FeatureFlow", "DeepSVDD", "GramMatrices")},
    "FeatureFlow": lambda: scores.FeatureFlow(max_steps=40),
    "DeepSVDD": lambda: scores.DeepSVDD(max_steps=60),
    "GramMatrices": lambda: scores.GramMatrices(powers=2),
}  # fmt: skip


@pytest.mark.parametrize("name", ALL)
def test_a_row_is_scored_by_itself(setting, name):
    net, gathered, _, _, new = setting
    net, new = (
        copy.deepcopy(net).double(),
        new.double(),
    )  # in single precision the network rounds differently with the batch
    reader = NetworkReader(net, layers=list(gathered.layers))
    score = ALL[name]().fit(gathered)
    together = score(reader.read(new, maps=True))
    assert together.dtype is torch.float64
    assert together.isfinite().all()
    alone = torch.cat([score(reader.read(row[None], maps=True)) for row in new])
    # Networks of a score are in single precision; a sum of terms near 10 then has an error of some 1e-6.
    close = {"rtol": 1e-6, "atol": 1e-5 if any(p.dtype is torch.float32 for p in score.parameters()) else 1e-7}
    assert torch.allclose(together, alone, **close)
    rows = reader.read(new, maps=True)
    parts = torch.cat([score(rows.rows(torch.arange(len(new)) // 20 == k)) for k in range(3)])
    assert torch.allclose(together, parts, **close)


@pytest.mark.parametrize("name", ["Mahalanobis", "LayerMahalanobis", "Mixture", "Neighbors", "ViM", "Residual", "FeatureFlow", "DeepSVDD", "GramMatrices"])  # fmt: skip
def test_distances_notice_inputs_far_away(setting, name):
    net, gathered, x, _, _ = setting
    reader = NetworkReader(net, layers=list(gathered.layers))
    score = ALL[name]().fit(gathered)
    far = torch.randn(100, 6) * 0.3  # between the classes
    found = auroc(score(reader.read(x, maps=True)).numpy(), score(reader.read(far, maps=True)).numpy())
    assert found > 0.6


def test_every_score_says_what_it_needs_and_costs():
    for name, cls in scores.SCORES.items():
        assert cls.cost in ("one forward pass", "a gradient of the input", "several forward passes", "unknown"), name
        assert cls.__doc__, name


@pytest.mark.parametrize(
    "make",
    [
        lambda: scores.MaxSoftmax(0),
        lambda: scores.MaxLogit(-1),
        lambda: scores.GEN(gamma=0),
        lambda: scores.GEN(top=0),
        lambda: scores.OpenMax(tail=1),
        lambda: scores.Neighbors(k=0),
        lambda: scores.Neighbors(k=5, rows=4),
        lambda: scores.ReAct(1.0),
        lambda: scores.Residual(0),
        lambda: scores.MCDropout(1),
        lambda: scores.MCDropout(form="entropy"),
        lambda: scores.DeepEnsemble([]),
        lambda: scores.FeatureFlow(form="norm"),
        lambda: scores.GramMatrices(0),
        lambda: scores.External(3),
        lambda: scores.External(abs, reads="weights"),
        lambda: Combined([]),
        lambda: Combined([scores.Energy()], weights=[0.0]),
        lambda: Combined([scores.Energy()], weights="a"),
        lambda: Combined([scores.Energy()], weights=1.0),
        lambda: Combined(["Energy"]),
        lambda: Combined(scores.Energy()),
    ],
)
def test_impossible_arguments(make):
    with pytest.raises(ConfigError):
        make()


def test_too_few_rows():
    gathered = Gathered(2, (), None, 100, 0)
    gathered.add(Reading(None, torch.randn(9, 3), torch.randn(9, 2)), torch.zeros(9, dtype=torch.long), {})
    for score, sentence in (
        (scores.Neighbors(k=10), "at least k=10 training rows; got 9"),
        (scores.OpenMax(), "every class; class 1 has 0"),
        (scores.FeatureFlow(), "at least 50 training rows; got 9"),
    ):
        with pytest.raises(InputError, match=sentence):
            score.fit(gathered)
    with pytest.raises(ConfigError, match="size must be less than the 3 features"):
        scores.Residual(3).fit(gathered)
    with pytest.raises(InputError, match="must be fitted first"):
        scores.Mahalanobis()(Reading(None, torch.zeros(1, 3)))


# -- the combination ------------------------------------------------------------------------------------------------------


def test_surprise_is_the_logarithm_of_the_fraction_above():
    generator = torch.Generator().manual_seed(0)
    reference = torch.stack((torch.randn(4000, generator=generator), torch.rand(4000, generator=generator)), 1).double()
    score = Combined([scores.Energy(), scores.Entropy()])
    score.set_scale(reference)
    points = torch.tensor([[-1.0, 0.2], [0.0, 0.5], [1.0, 0.8]], dtype=torch.float64)
    expected = np.stack((-stats.norm.logsf([-1, 0, 1]), -np.log([0.8, 0.5, 0.2])), 1)
    assert score.surprise(points).numpy() == pytest.approx(expected, abs=0.08)
    line = torch.linspace(-4, 8, 500, dtype=torch.float64)
    values = score.surprise(torch.stack((line, line), 1))
    assert (values.diff(dim=0) >= 0).all()
    assert values[-1, 0] > 10
    ends = score.surprise(torch.tensor([[math.inf, 0.1], [-math.inf, 0.1]], dtype=torch.float64))[:, 0]
    assert ends.tolist() == [math.inf, 0.0]
    excess = torch.distributions.Exponential(1.0).sample((4000, 2)).double()
    score.set_scale(excess)
    assert score.surprise(torch.full((1, 2), 9.0, dtype=torch.float64)).numpy() == pytest.approx(9, rel=0.15)


def test_the_combination_is_a_root_mean_square():
    score = Combined([scores.Energy(), scores.Entropy()], weights=[3.0, 1.0])
    score.set_scale(torch.randn(100, 2, generator=torch.Generator().manual_seed(0)).double())
    columns = torch.tensor([[0.3, 2.0], [-1.0, 0.5]], dtype=torch.float64)
    surprise = score.surprise(columns).numpy()
    expected = np.sqrt(0.75 * surprise[:, 0] ** 2 + 0.25 * surprise[:, 1] ** 2)
    assert score.combine(columns).numpy() == pytest.approx(expected)
    alone = Combined([scores.Energy()])
    assert torch.equal(alone.combine(columns[:, :1]), columns[:, 0])


def test_a_constant_statistic_says_nothing_until_it_changes():
    score = Combined([scores.Energy(), scores.Entropy()])
    score.set_scale(torch.stack((torch.zeros(50), torch.arange(50.0)), 1).double())
    found = score.surprise(torch.tensor([[0.0, 1.0], [1.0, 1.0]], dtype=torch.float64))
    assert found.isfinite().all()
    assert found[0, 0] == 0  # every reference row is at least as large
    assert found[1, 0] > -math.log(0.1)


def test_too_few_reference_rows():
    score = Combined([scores.Energy(), scores.Entropy()])
    with pytest.raises(InputError, match="at least 20 reference rows; got 19"):
        score.set_scale(torch.zeros(19, 2, dtype=torch.float64))
    with pytest.raises(InputError, match="Entropy is infinite"):
        score.set_scale(torch.stack((torch.zeros(30), torch.full((30,), math.inf)), 1).double())


def test_a_combination_without_its_scale():
    reading = Reading(output=None, features=torch.zeros(2, 1), logits=torch.tensor([[2.0, 0.0], [0.1, 0.0]]))
    with pytest.raises(InputError, match="needs its common scale first"):
        Combined([scores.Energy(), scores.Entropy()])(reading)


@pytest.mark.parametrize("make", [scores.MaxSoftmax, scores.MaxLogit, scores.Energy, scores.Entropy, scores.GEN])
def test_a_reading_without_logits(make):
    with pytest.raises(InputError, match=f"{make.__name__} needs logits"):
        make()(Reading(output=None, features=torch.zeros(2, 1)))
