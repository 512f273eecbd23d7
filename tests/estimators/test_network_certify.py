"""Guards of networks with smoothing: promises without attacks, and bounds that attacks do not break."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pushforward as pf
from pushforward.detection import realized_interval
from pushforward.detection.smoothing import NoisyFunction, Smoothing
from pushforward.errors import ConfigError, InputError

OPTIONS = {"sigma": 0.5, "draws": 32}


def clouds(n: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 3, (n,), generator=generator)
    return 3.0 * torch.eye(3, 4)[y] + torch.randn(n, 4, generator=generator), y


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    x, y = clouds(600, 0)
    net = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(150):
        loss = nn.functional.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


@pytest.fixture(scope="module")
def guard(net) -> pf.NetworkGuard:
    return pf.NetworkGuard(net, 0.05, smoothing=OPTIONS).fit(clouds(600, 0), calibration=clouds(300, 1)[0])


ANOMALIES = torch.tensor([[8.0, 8.0, 8.0, 0.0], [0.0, 0.0, 0.0, 12.0], [-9.0, -9.0, 3.0, 3.0]])


def test_the_score_is_the_order_statistic_of_the_guards_score(net, guard):
    plain = pf.NetworkGuard(net, 0.05).fit(clouds(600, 0), calibration=clouds(300, 1)[0])
    x = torch.cat((clouds(10, 2)[0], ANOMALIES))

    def function(rows: np.ndarray) -> np.ndarray:
        return plain.anomaly_score(torch.from_numpy(rows).float())

    smoothing, base = Smoothing(seed=0, **OPTIONS), NoisyFunction(function)
    rows = x.double().numpy()
    assert np.allclose(guard.anomaly_score(x), smoothing.score(base, rows), rtol=1e-6)
    certificate = guard.certify(x, 0.3, draws=1500)
    lower = smoothing.lower_bound(base, rows, 0.3, draws=1500)
    assert np.allclose(certificate.score, lower, rtol=1e-6)
    assert np.array_equal(certificate.p_value, guard.calibrators_[None].p_value(certificate.score))
    radius = guard.certified_radius(x, draws=1500)
    at = guard.calibrators_[None].score_threshold(0.05)
    assert np.allclose(radius, smoothing.certified_radius(base, rows, at, draws=1500), equal_nan=True)
    assert (radius[-3:] > 0.3).all()


def test_false_alarms_are_as_promised(guard):
    x = clouds(300, 3)[0]
    low, high = realized_interval(210, 300, 0.05, level=0.999)
    assert low <= float(guard(x).alarm.float().mean()) <= high


def test_an_attack_does_not_break_a_certificate(guard):
    """A search in the ball around anomalies, by the deployed score itself, from the direction of the nearest normal row."""
    radius = 0.5
    certificate = guard.certify(ANOMALIES, radius, draws=2000)
    assert certificate.alarm.all()
    rng, normal = np.random.default_rng(0), clouds(600, 0)[0].numpy()
    for row, bound in zip(ANOMALIES.numpy(), certificate.p_value, strict=True):
        first = guard.anomaly_score(torch.from_numpy(row[None]))[0]
        toward = normal[np.linalg.norm(normal - row, axis=1).argmin()] - row
        best, lowest = np.zeros_like(row), first
        for k in range(6):
            moved = best + radius * (0.3 * rng.normal(size=(10, 4)) + (k == 0) * toward / np.linalg.norm(toward))
            moved *= np.minimum(1.0, (radius - 1e-6) / np.linalg.norm(moved, axis=1))[:, None]
            scores = guard.anomaly_score(torch.from_numpy(row + moved).float())
            if scores.min() < lowest:
                best, lowest = moved[scores.argmin()], scores.min()
        assert lowest < first  # the attack does what it can
        assert guard(torch.from_numpy(row + best)[None].float()).p_value[0] <= bound


def test_an_image_and_a_file(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 3)).eval()
    x, y = torch.rand(400, 1, 6, 6), torch.randint(0, 3, (400,))
    guard = pf.NetworkGuard(net, 0.1, smoothing={"sigma": 0.1, "draws": 16, "seed": 5}).fit(
        (x[:200], y[:200]), calibration=(x[200:], y[200:])
    )
    guard.save(tmp_path / "g.safetensors")
    loaded = pf.NetworkGuard.load(tmp_path / "g.safetensors", net)
    new = torch.rand(5, 1, 6, 6)
    new[3] = torch.nan
    out = loaded(new)
    assert torch.equal(out.score, guard(new).score)
    assert out.score[3] == math.inf
    assert out.alarm[3]
    alone = guard(new[:1])
    assert alone.score[0] == out.score[0]  # the noise belongs to the row
    assert np.array_equal(loaded.certify(new[:2], 0.05, draws=200).score, guard.certify(new[:2], 0.05, draws=200).score)
    assert len(guard(new[:0]).alarm) == 0
    assert guard.selective(method="lac", temperature_part=0).without_alarm


def test_wrong_use(net, guard):
    x = clouds(600, 0)
    with pytest.raises(ConfigError, match="certificates need a guard with smoothing"):
        pf.NetworkGuard(net, 0.1).fit(x, calibration=clouds(200, 1)[0]).certify(x[0][:1], 0.1)
    with pytest.raises(ConfigError, match="smoothing must be a number, or a dictionary"):
        pf.NetworkGuard(net, smoothing={"sigma": 1.0, "scale": 2.0})
    with pytest.raises(ConfigError, match="smoothing"):
        pf.NetworkGuard(net, smoothing=0.0)
    with pytest.raises(ConfigError, match="per_class=False"):
        pf.NetworkGuard(net, smoothing=0.1, per_class=True)
    with pytest.raises(ConfigError, match="cannot be exported"):
        guard.as_module()
    with pytest.raises(ConfigError, match="cannot be exported"):
        guard.export("g.pt2", x[0][:2])
    with pytest.raises(InputError, match="finite"):
        guard.certify(torch.full((1, 4), torch.nan), 0.1)
    with pytest.raises(InputError, match=r"cannot read a batch of shape \(2, 7\)"):  # though no bound is possible
        guard.certify(torch.zeros(2, 7), 100.0, draws=10)
    words = nn.Sequential(nn.EmbeddingBag(10, 8), nn.Linear(8, 3)).eval()
    tokens = torch.randint(0, 10, (300, 5))
    with pytest.raises(InputError, match="one tensor of floating-point numbers"):
        pf.NetworkGuard(words, 0.1, smoothing=0.1).fit((tokens, torch.arange(300) % 3), calibration=tokens.flip(0))
