"""Scores that pytorch-ood has too are the same numbers, after sign and scale, on the same network."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pushforward.detection import network as scores
from pushforward.detection.network import External, Gathered, NetworkReader, NetworkScore, Reading

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    detector = pytest.importorskip("pytorch_ood.detector")

CLASSES, FEATURES = 4, 12


class Net(nn.Module):
    """A network whose parts can be called by themselves, in float64 so that only definitions can differ."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, FEATURES, 3, stride=2)
        self.spread = nn.Linear(FEATURES, FEATURES)
        self.head = nn.Linear(FEATURES, CLASSES)

    def first(self, x: Tensor) -> Tensor:
        return torch.tanh(self.conv1(x))

    def pooled(self, x: Tensor) -> Tensor:
        return torch.tanh(self.conv2(self.first(x))).mean((2, 3))

    def encode(self, x: Tensor) -> Tensor:
        return self.spread(self.pooled(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encode(x))


@pytest.fixture(autouse=True)
def double_by_default():  # pytorch-ood makes tensors of the default type
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def setting() -> tuple[Net, Gathered, Reading, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    net = Net().double().eval()
    x = torch.rand(400, 1, 8, 8, dtype=torch.float64)
    with (
        torch.no_grad()
    ):  # random weights give features that hardly differ: whiten them, so that covariances are well conditioned
        net.conv1.weight.mul_(30)  # pytorch-ood adds 1e-6 to variances; this makes it too small to matter
        z = net.pooled(x)
        scales = torch.linspace(0.5, 2, FEATURES)[:, None]  # different, so that a principal subspace is defined
        net.spread.weight.copy_(scales * torch.linalg.inv(torch.linalg.cholesky(torch.cov(z.T))))
        net.spread.bias.copy_(1 - net.spread.weight @ z.mean(0))
        net.head.weight.copy_(0.4 * torch.randn(CLASSES, FEATURES, dtype=torch.float64))
        net.head.bias.copy_(0.1 - net.head.weight.sum(1))
        new = 2 * x[:60].flip(3) - torch.rand(60, 1, 8, 8, dtype=torch.float64)
        y = net(x).argmax(1)
        y[::17] = (y[::17] + 1) % CLASSES
    reader = NetworkReader(net, layers=["conv1"])
    grams = scores.GramMatrices(powers=1, held_out=0.0)
    gathered = Gathered(CLASSES, ("conv1",), None, 10_000, 0)
    for start in range(0, 400, 64):
        reading = reader.read(x[start : start + 64], maps=True)
        gathered.weight, gathered.bias = reader.weight_and_bias() or (None, None)
        reading.features, reading.logits = reading.features.double(), reading.logits.double()
        gathered.add(reading, y[start : start + 64], grams.observe(reading))
    # the reservoir stores single precision; here definitions are compared, so it gets the double ones
    with torch.no_grad():
        order = gathered.sample["index"]
        gathered.reservoir.values |= {"features": net.encode(x)[order], "logits": net(x)[order]}
    return net, gathered, reader.read(new, maps=True), x, y, new


def ours(score: NetworkScore, setting: tuple) -> np.ndarray:
    return score.fit(setting[1])(setting[2]).numpy()


def assert_same(a: np.ndarray, b: Tensor, factor: float = 1.0) -> None:
    b = b.detach().double().numpy() * factor
    assert np.abs(a - b).max() <= 1e-5 * max(1.0, np.abs(b).max())


LOGITS = [
    (lambda: scores.MaxSoftmax(), lambda: detector.MaxSoftmax(None), 1.0),
    (lambda: scores.MaxSoftmax(2.0), lambda: detector.MaxSoftmax(None, t=2.0), 1.0),
    (lambda: scores.MaxLogit(), lambda: detector.MaxLogit(None), 1.0),
    (lambda: scores.Energy(), lambda: detector.EnergyBased(None), 1.0),
    (lambda: scores.Energy(3.0), lambda: detector.EnergyBased(None, t=3.0), 1.0),
    (lambda: scores.Entropy(), lambda: detector.Entropy(None), 1.0),
    (lambda: scores.KLMatching(), lambda: detector.KLMatching(None), 1.0),
]


@pytest.mark.parametrize("case", LOGITS, ids=lambda case: type(case[0]()).__name__)
def test_scores_of_logits(setting, case):
    net, _, _, x, y, new = setting
    make, other, factor = case
    theirs = other()
    with torch.no_grad():
        theirs.fit_logits(net(x), y)
        assert_same(ours(make(), setting), theirs.predict_logits(net(new)), factor)


@pytest.mark.parametrize(("gamma", "top"), [(0.1, None), (0.5, 2)])
def test_generalized_entropy_where_no_probability_is_clamped(setting, gamma, top):
    # pytorch-ood raises probabilities to 1e-7, and 1e-7 ** 0.1 is 0.2: confident rows tie there, not here and not in the paper
    net, gathered, reading, _, _, new = setting
    with torch.no_grad():
        logits = 0.4 * net(new)
    assert torch.softmax(logits, 1).min() > 1e-6
    found = scores.GEN(gamma, top).fit(gathered)(Reading(None, reading.features, logits)).numpy()
    assert_same(
        found, detector.GEN(None, gamma, top).predict_logits(logits), top or CLASSES
    )  # a mean there, the paper's sum here


def test_openmax(setting):
    net, _, _, x, y, new = setting
    theirs = detector.OpenMax(None, tailsize=25, alpha=10)
    with torch.no_grad():
        logits = net(x)
        correct = (
            logits.argmax(1) == y
        )  # the paper's algorithm 1 takes these rows, and pytorch-ood all that it is given
        assert 100 < int(correct.sum()) < len(y)
        theirs.fit_logits(logits[correct], y[correct])
        assert set(net(new).argmax(1).tolist()) == set(range(CLASSES))  # otherwise its distances are 0, see below
        expected = theirs.predict_logits(net(new)).numpy()
    found = ours(scores.OpenMax(tail=25, alpha=10), setting)
    assert np.abs(found - expected).max() < 1e-5


def test_openmax_of_pytorch_ood_depends_on_the_batch_and_ours_does_not(setting):
    net, _, reading, x, y, new = setting
    theirs = detector.OpenMax(None)
    with torch.no_grad():
        theirs.fit_logits(net(x), y)
        together, alone = (
            theirs.predict_logits(net(new)),
            torch.cat([theirs.predict_logits(net(row[None])) for row in new]),
        )
    assert (together - alone).abs().max() > 1e-3
    score = scores.OpenMax().fit(setting[1])
    one_by_one = torch.cat([score(reading.rows(torch.arange(len(new)) == i)) for i in range(len(new))])
    assert torch.allclose(score(reading), one_by_one, atol=1e-12)


def test_temperature_has_the_smaller_cross_entropy(setting):
    net, _, _, x, y, _ = setting
    theirs = detector.TemperatureScaling(None)
    with torch.no_grad():
        logits = net(x)
    theirs.t = torch.nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs.fit_logits(logits, y)
    score = scores.Temperature()
    ours(score, setting)

    def loss(t: float) -> float:
        return float(torch.nn.functional.cross_entropy(logits / t, y))

    t = float(score.temperature)
    assert loss(t) <= loss(float(theirs.t.detach())) + 1e-12
    assert loss(t) <= min(loss(0.999 * t), loss(1.001 * t))


FEATURE = [
    # pytorch-ood does not divide the scatter by the number of rows, which scales all distances
    (lambda: scores.Mahalanobis(), lambda net: detector.Mahalanobis(None), 2 * 400),
    (lambda: scores.RelativeMahalanobis(), lambda net: detector.RMD(None), 400),
    (lambda: scores.Mixture(), lambda net: detector.GMM(None), 1.0),
    (lambda: scores.Neighbors(k=50), lambda net: detector.KNN(None, k=50), 1.0),
    (lambda: scores.Neighbors(k=3, normalize=False), lambda net: detector.KNN(None, k=3, normalize=False), 1.0),
    (lambda: scores.ViM(5), lambda net: detector.ViM(None, 5, net.head.weight, net.head.bias), 1.0),
    (lambda: scores.SHE(), lambda net: detector.SHE(None, net.head), 1.0),
    (lambda: scores.ReAct(), lambda net: detector.ReAct(net.encode, net.head), 1.0),
]  # fmt: skip


@pytest.mark.parametrize("case", FEATURE, ids=lambda case: type(case[0]()).__name__)
def test_scores_of_features(setting, case):
    net, _, _, x, y, new = setting
    make, other, factor = case
    theirs = other(net)
    with torch.no_grad():
        z, z_new = net.encode(x), net.encode(new)
        if isinstance(theirs, detector.ReAct):
            theirs.fit_feature_maps(z, y)
            expected = theirs.predict_feature_maps(z_new)
        else:
            theirs.fit_features(z, y)
            expected = theirs.predict_features(z_new)
    assert_same(ours(make(), setting), expected, factor)


def test_mahalanobis_of_two_layers(setting):
    net, _, _, x, y, new = setting
    theirs = detector.MultiMahalanobis([net.conv1, net.spread])
    with torch.no_grad():
        pooled, pooled_new = net.conv1(x).mean((2, 3)), net.conv1(new).mean((2, 3))
        theirs.fit_structured([pooled, net.encode(x)], y)
        assert_same(
            ours(scores.LayerMahalanobis(), setting), theirs.predict_structured([pooled_new, net.encode(new)]), 800
        )


def test_gram_matrices(setting):
    net, _, _, x, y, new = setting

    class Rest(nn.Module):
        def forward(self, maps: Tensor) -> Tensor:
            return net.head(net.spread(torch.tanh(net.conv2(torch.tanh(maps))).mean((2, 3))))

    theirs = detector.Gram(Rest(), [net.conv1], CLASSES, num_poles_list=[1])
    theirs.validation_fraction = 0.0  # its held-out rows are drawn without a seed
    theirs.fit(torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=64))
    assert_same(ours(scores.GramMatrices(powers=1, held_out=0.0), setting), theirs.predict(new))


def test_odin(setting):
    net, _, _, _, _, new = setting
    assert_same(
        ours(scores.ODIN(temperature=10.0, step=0.01), setting),
        detector.ODIN(net, temperature=10.0, eps=0.01).predict(new),
    )


def test_gradnorm_of_the_last_weights(setting):
    net, _, _, _, _, new = setting
    theirs = detector.GradNorm(net, param_filter=lambda name: name == "head.weight", temperature=2.0)
    assert_same(ours(scores.GradNorm(2.0), setting), theirs.predict(new))


def test_dropout_variance_is_that_of_pytorch_ood_on_average():
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 3)).eval()
    x = torch.randn(40, 6)
    reading = NetworkReader(net).read(x)
    found = scores.MCDropout(passes=400, form="variance")(reading).numpy()
    expected = detector.MCD(net, samples=400, mode="var").predict(x).numpy()
    assert np.abs(found / expected - 1).max() < 0.5
    assert abs(found.mean() / expected.mean() - 1) < 0.1


@pytest.mark.parametrize("make", [lambda net: detector.KNN(None, k=5), lambda net: detector.GMM(None), lambda net: detector.EnergyBased(None)])  # fmt: skip
def test_any_detector_is_a_score(setting, make):
    net, gathered, reading, _, _, _ = setting
    theirs = make(net)
    found = External(theirs).fit(gathered)(reading)
    assert found.shape == (60,)
    assert found.isfinite().all()


def test_a_detector_of_inputs_is_fitted_first_and_reads_them(setting):
    net, gathered, reading, _, _, new = setting
    theirs = detector.ODIN(net)
    assert_same(External(theirs).fit(gathered)(reading).numpy(), theirs.predict(new))


def test_oodeel_detectors_are_scores(setting):
    methods = pytest.importorskip("oodeel.methods")
    net, gathered, reading, x, y, _ = setting
    theirs = methods.Energy()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=50)
    theirs.fit(net, feature_layers_id=[], fit_dataset=loader)
    assert_same(External(theirs).fit(gathered)(reading).numpy(), torch.from_numpy(ours(scores.Energy(), setting)))
