"""Abstention and sets for the answers of a guarded network that raise no alarm, against direct use of their parts."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import pushforward as pf
from pushforward.detection.selective import ClassifierCalibration
from pushforward.errors import CalibrationError, ConfigError, InputError


def clouds(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Rows of three classes in four dimensions that overlap."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 3, (n,), generator=generator)
    return 2.0 * torch.eye(3, 4)[y] + torch.randn(n, 4, generator=generator), y


@pytest.fixture(scope="module")
def net() -> nn.Module:
    """The best linear classifier of the rows (their densities are known), after a layer that changes nothing."""
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3)).eval()
    for layer in (net[0], net[1]):
        layer.weight.data, layer.bias.data = (
            (1 + (layer is net[1])) * torch.eye(*layer.weight.shape),
            torch.zeros(len(layer.weight)),
        )
    return net


@pytest.fixture(scope="module")
def guard(net) -> pf.NetworkGuard:
    return pf.NetworkGuard(net, 0.1).fit(clouds(500, 0), calibration=clouds(2000, 1))


OPTIONS = {"coverage": 0.9, "risk": 0.1, "delta": 0.1, "method": "lac"}


def test_other_rows_are_those_without_an_alarm(guard, net):
    x, y = clouds(1500, 2)
    with torch.no_grad():
        logits = net(x)
    found = guard.selective(DataLoader(TensorDataset(x, y), batch_size=400), **OPTIONS)
    expected = ClassifierCalibration.fit(
        logits[guard.p_value(x) > guard.levels_[None]], y[guard.p_value(x) > guard.levels_[None]], **OPTIONS
    )
    assert found.without_alarm
    assert not expected.without_alarm
    assert found.rule == expected.rule
    assert found.temperature == expected.temperature
    new = clouds(300, 3)[0]
    assert np.array_equal(found.sets(net(new).detach()), expected.sets(net(new).detach()))


@pytest.mark.parametrize("score", ["default", "Mahalanobis"])
def test_own_rows_are_the_calibration_rows_below_the_alarm_without_those_of_the_scale(net, score):
    x, y = clouds(2000, 1)
    guard = pf.NetworkGuard(net, 0.1, score=score).fit(clouds(500, 0), calibration=(x, y))
    own = np.isin(guard.anomaly_score(x), guard.calibrators_[None].scores)
    assert own.sum() == (1400 if score == "default" else 2000)
    kept = own & (guard.p_value(x) > guard.levels_[None])
    rows_without_alarm = kept.sum()
    kept &= (
        guard.anomaly_score(x) < guard.anomaly_score(x[kept]).max()
    )  # the row at the threshold is not a draw below it
    assert kept.sum() == rows_without_alarm - 1
    with torch.no_grad():
        logits = net(x)
    # without rows for the temperature the result does not depend on the order of the rows
    found = guard.selective(temperature_part=0, **OPTIONS)
    expected = ClassifierCalibration.fit(logits[kept], y[kept], temperature_part=0, **OPTIONS)
    assert found.rule == expected.rule
    new = clouds(300, 3)[0]
    assert np.array_equal(found.sets(net(new).detach()), expected.sets(net(new).detach()))


def test_accept_needs_no_alarm_and_little_uncertainty(net):
    guard = pf.NetworkGuard(net, 0.1, score="Mahalanobis").fit(clouds(500, 0), calibration=clouds(2000, 1))
    x, y = clouds(400, 4)
    x[:20] = torch.tensor([30.0, 0.0, 0.0, 0.0])
    x[0] = torch.nan
    calibration, out = guard.selective(**OPTIONS), guard(x)
    accepted = out.accept(calibration)
    assert out.alarm[:20].all()
    assert not accepted[:20].any()
    certain = np.zeros(400, dtype=bool)
    certain[1:] = calibration.accept(calibration.uncertainty(net(x[1:]).detach()))
    assert np.array_equal(accepted.numpy(), certain & ~out.alarm.numpy())
    assert 0 < accepted.sum() < (~out.alarm).sum()
    assert certain[1:20].all()  # the network is certain far from the data, so the alarm is what rejects them
    report = dict(guard.report((x, y), selective=calibration).to_dict()["network"]["selective"])
    assert report["Accepted"].startswith(f"{int(accepted.sum())} of 400 inputs")
    wrong = (out.prediction != y)[accepted].float().mean()
    assert report["Error rate among accepted inputs"] == f"{100 * wrong:.2f}%"
    kept = ~out.alarm
    covered = calibration.sets(net(x[kept]).detach())[np.arange(int(kept.sum())), y[kept]].mean()
    assert report["Sets that contain the label"] == f"{100 * covered:.2f}%"


@pytest.mark.slow
def test_the_promises_hold_with_the_guards_own_rows(net):
    """If each of 200 redraws breaks the promise of the risk with probability 0.1, more than 35 do with probability 4e-4."""
    redraws, delta, risk, coverage = 200, 0.1, 0.08, 0.9
    broken, contained = 0, []
    x, y = clouds(20_000, 10**6)
    for seed in range(redraws):
        guard = pf.NetworkGuard(net, 0.2, score="Mahalanobis", seed=seed).fit(
            clouds(300, 3 * seed), calibration=clouds(600, 3 * seed + 1)
        )
        calibration = guard.selective(coverage=coverage, risk=risk, delta=delta, method="lac", seed=seed)
        out = guard(x)
        accepted = out.accept(calibration)
        broken += bool((out.prediction != y)[accepted].double().mean() > risk)
        kept = ~out.alarm
        sets = calibration.sets(out.logits[kept].double().numpy())
        contained.append(sets[np.arange(len(sets)), y[kept].numpy()].mean())
    assert broken <= 35
    spread = np.std(contained) / len(contained) ** 0.5
    assert np.mean(contained) > coverage - 4 * spread
    assert np.mean(contained) < coverage + 0.01  # the promise is tight


def test_when_the_guards_own_rows_cannot_be_used(guard, net, tmp_path):
    x, y = clouds(2000, 1)
    train = clouds(500, 0)
    other = r"pass calibration=\(x, y\)"
    with pytest.raises(CalibrationError, match=f"kept no labels.*{other}"):
        pf.NetworkGuard(net, 0.1).fit(train, calibration=x).selective(risk=0.1)
    guard.save(tmp_path / "g.safetensors")
    loaded = pf.NetworkGuard.load(tmp_path / "g.safetensors", net)
    with pytest.raises(CalibrationError, match="loaded from a file"):
        loaded.selective()
    assert loaded.selective(clouds(1500, 2), **OPTIONS).rule == guard.selective(clouds(1500, 2), **OPTIONS).rule
    with pytest.raises(CalibrationError, match=f"has learned the rows.*{other}"):
        pf.NetworkGuard(net, 0.1).fit(clouds(3000, 1), calibration="train").selective()
    per_class = pf.NetworkGuard(net, 0.1, per_class=True).fit(train, calibration=(x, y))
    with pytest.raises(CalibrationError, match=f"per_class=True.*{other}"):
        per_class.selective()
    assert per_class.selective(clouds(1500, 2), risk=0.1).without_alarm
    tied = copy.copy(guard)
    tied._calibration = (guard._calibration[0].round(decimals=0), guard._calibration[1])
    tied._calibrate(*tied._calibration)
    with pytest.raises(CalibrationError, match=f"several calibration rows.*{other}"):
        tied.selective()


def test_where_every_row_raises_an_alarm(guard):
    calibration, x = guard.selective(**OPTIONS), torch.full((3, 4), torch.nan)
    assert not guard(x).accept(calibration).any()
    assert guard(x[:0]).accept(calibration).shape == (0,)
    report = dict(guard.report((x, torch.zeros(3).long()), selective=calibration).to_dict()["network"]["selective"])
    assert report["Accepted"].startswith("0 of 3 inputs")
    assert not {"Prediction sets", "Sets that contain the label", "Error rate among accepted inputs"} & set(report)


def test_wrong_use(guard, net):
    x, y = clouds(300, 2)
    with pytest.raises(InputError, match="needs labels"):
        guard.selective(x)
    with pytest.raises(InputError, match="label"):
        guard.selective((x, y + 3))
    with pytest.raises(CalibrationError, match="needs at least"):
        guard.selective((x[:20], y[:20]), risk=0.05)
    embedding = pf.NetworkGuard(net, 0.1, task="embed").fit(x, calibration=clouds(500, 1)[0])
    with pytest.raises(ConfigError, match="classifies"):
        embedding.selective((x, y))
    with pytest.raises(ConfigError, match="classifies"):
        embedding(x).accept(guard.selective())
    with pytest.raises(ConfigError, match="promises no risk"):
        guard(x).accept(guard.selective())
    with pytest.raises(ConfigError, match="leave scores out"):
        guard.selective((x, y), risk=0.1, scores=np.zeros(300))
    rng, labels = np.random.default_rng(0), np.arange(700) % 7
    seven = ClassifierCalibration.fit(
        9 * np.eye(7)[labels] + rng.normal(size=(700, 7)), labels, risk=0.3, temperature_part=0
    )
    with pytest.raises(InputError, match=r"shape \(rows, 7\); got shape"):
        guard(x).accept(seven)
    by_scores = ClassifierCalibration.fit(net(x).detach(), y, rng.random(300), risk=0.5, temperature_part=0)
    for calibration in (by_scores, ClassifierCalibration.unpack(*by_scores.pack("c."), "c.")):
        with pytest.raises(ConfigError, match="was fitted with scores="):
            guard(x).accept(calibration)
        with pytest.raises(ConfigError, match="was fitted with scores="):
            guard.report((x, y), selective=calibration)


def test_a_file_keeps_what_the_promises_are_for(guard):
    calibration = guard.selective(**OPTIONS)
    again = ClassifierCalibration.unpack(*calibration.pack("c."), "c.")
    assert again.without_alarm
    assert again.rule == calibration.rule
    assert again.by_scores is False
    description, tensors = calibration.pack("c.")
    del description["by_scores"]  # as in a file of before
    old = ClassifierCalibration.unpack(description, tensors, "c.")
    assert old.by_scores is None
    assert guard(clouds(9, 3)[0]).accept(old).shape == (9,)


def test_an_unknown_option_names_the_known_ones():
    with pytest.raises(ConfigError, match=r"unknown option approach: .*per_class"):
        ClassifierCalibration.fit(np.zeros((50, 2)), np.zeros(50, dtype=int), approach="lac")
