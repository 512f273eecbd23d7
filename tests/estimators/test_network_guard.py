"""`NetworkGuard`: alarms at the promised rate around real and small networks, files, and wrong use in a sentence each."""

from __future__ import annotations

import copy
import gc
import re
import warnings
import weakref

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset, SubsetRandomSampler, TensorDataset

import pushforward as pf
from pushforward.detection import network as scores
from pushforward.detection import realized_interval
from pushforward.errors import CalibrationError, ConfigError, InputError, PushforwardWarning, StorageError
from pushforward.estimators.network_rows import share_rows
from pushforward.estimators.validation import NotFittedError


def train(net: nn.Module, x: Tensor, y: Tensor, steps: int = 150) -> nn.Module:
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(steps):
        index = torch.randint(len(x), (128,))
        loss = nn.functional.cross_entropy(net(x[index]), y[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


@pytest.fixture(scope="module")
def blobs() -> tuple[nn.Module, Tensor, Tensor]:
    """A network of three classes in 8 dimensions, and rows; the first 1,000 trained it."""
    torch.manual_seed(0)
    centers = 3 * torch.randn(3, 8)
    y = torch.randint(0, 3, (6000,))
    x = centers[y] + torch.randn(6000, 8)
    net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 3))
    return train(net, x[:1000], y[:1000]), x, y


@pytest.fixture(scope="module")
def guard(blobs) -> pf.NetworkGuard:
    net, x, y = blobs
    return pf.NetworkGuard(net, 0.05).fit((x[:1000], y[:1000]), calibration=x[1000:2500])


def test_a_network_that_knows_eight_digits_notices_the_other_two():
    digits = load_digits()
    x, y = torch.tensor(digits.data).float() / 16, torch.tensor(digits.target)  # pyright: ignore
    known = y < 8
    order = torch.randperm(int(known.sum()), generator=torch.Generator().manual_seed(0))
    x_known, y_known, others = x[known][order], y[known][order], x[~known]
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8))
    train(net, x_known[:700], y_known[:700], 300)
    loader = DataLoader(TensorDataset(x_known[:700], y_known[:700]), batch_size=64)
    guard = pf.NetworkGuard(net, alpha=0.05).fit(loader, calibration=x_known[700:1100])
    out = guard(x_known[1100:])
    assert (out.prediction == y_known[1100:]).float().mean() > 0.93
    low, high = realized_interval(280, len(out.alarm), 0.05, level=0.999)
    assert low <= float(out.alarm.float().mean()) <= high
    assert guard(others).alarm.float().mean() > 0.5
    assert guard(16 - 16 * others).alarm.float().mean() > 0.95
    assert all(guard(others).reason[i] for i in guard(others).alarm.nonzero().flatten())


def outside_the_law(blobs, redraws: int, alpha: float = 0.05, **options) -> int:
    """How many of the realized rates of redrawn guards are outside the central 95 % of the beta-binomial distribution."""
    net, x, y = blobs
    outside = 0
    for seed in range(redraws):
        order = 1000 + torch.randperm(5000, generator=torch.Generator().manual_seed(seed))
        guard = pf.NetworkGuard(net, alpha, seed=seed, **options).fit((x[:1000], y[:1000]), calibration=x[order[:1500]])
        test = x[order[1500:]]
        low, high = realized_interval(
            guard.calibrators_[None].n, len(test), alpha, guarantee=guard.guarantee, delta=guard.delta
        )
        outside += not low <= float(guard(test).alarm.float().mean()) <= high
    return outside


def test_false_alarms_are_as_promised(blobs):
    assert outside_the_law(blobs, 4) <= 2  # outside with probability 0.05 each: three of four with probability 5e-4


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"score": "Mahalanobis"}, {"guarantee": "pac"}], ids=str)
def test_false_alarms_over_many_redraws(blobs, options):
    assert outside_the_law(blobs, 20, **options) <= 4  # more with probability 0.003


def test_each_class_has_its_own_rate(blobs):
    net, x, y = blobs
    guard = pf.NetworkGuard(net, 0.1, per_class=True).fit((x[:1000], y[:1000]), calibration=x[1000:4000])
    out = guard(x[4000:])
    for k in range(3):
        own = out.prediction == k
        low, high = realized_interval(guard.calibrators_[k].n, int(own.sum()), 0.1, level=0.999)
        assert low <= float(out.alarm[own].float().mean()) <= high


def test_an_answer_agrees_with_itself(blobs, guard):
    _, x, _ = blobs
    out = guard(x[:50])
    assert out.p_value.dtype is torch.float64
    assert torch.equal(out.alarm, out.p_value <= guard.levels_[None])
    assert np.array_equal(guard.p_value(x[:50]), out.p_value.numpy())
    assert np.array_equal(guard.anomaly_score(DataLoader(x[:50], batch_size=50)), out.score.numpy())
    empty = guard(x[:0])
    assert len(empty.p_value) == len(empty.alarm) == len(empty.reason) == 0


def test_a_row_is_scored_by_itself(blobs):
    net, x, y = blobs
    net, x = (
        copy.deepcopy(net).double(),
        x.double(),
    )  # in single precision a network itself rounds differently with the batch
    guard = pf.NetworkGuard(net, 0.05).fit((x[:1000], y[:1000]), calibration=x[1000:2500])
    together = guard(x[3000:3050]).score
    assert torch.allclose(torch.cat([guard(row[None]).score for row in x[3000:3050]]), together, rtol=1e-5)


def test_reasons_name_the_nearest_training_rows(blobs, guard):
    _, x, y = blobs
    explanation = guard.explain(x[:40], neighbors=2)
    assert explanation.nearest[:, 0].tolist() == list(range(40))  # training rows find themselves
    assert explanation.labels[:, 0].tolist() == y[:40].tolist()
    assert np.abs(explanation.distance[:, 0]).max() < 1e-3
    far = guard(torch.full((1, 8), 50.0))
    assert re.fullmatch(
        r"\w+ is as high for \S+( than)?( \S+)? of normal inputs; the nearest training rows are .*\(classes .*\)",
        far.reason[0],
    )
    assert guard.explain(torch.full((1, 8), 50.0)).top()[0][1] > 5


def test_the_gradient_shows_where():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(32, 16), nn.Tanh(), nn.Linear(16, 2)).eval()
    with torch.no_grad():
        net[1].weight[:, 16:] = 0  # the network does not see the lower half
    x = torch.rand(800, 1, 8, 4)
    guard = pf.NetworkGuard(net, 0.05, task="classify").fit(x[:400], calibration=x[400:])
    where = guard.explain(2 * x[:3], gradient=True).gradient
    assert where.shape == (3, 1, 8, 4)
    assert (where[:, :, 4:] == 0).all()
    assert (where[:, :, :4] > 0).any()


@pytest.mark.parametrize("score", ["default", "OpenMax", "Mahalanobis"])
def test_a_gradient_is_never_nan(score):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    x, y = torch.randn(600, 4), torch.arange(600) % 3
    guard = pf.NetworkGuard(net, 0.05, score=score).fit((x[:300], y[:300]), calibration=x[300:])
    rows = torch.cat((1e10 * x[:3], 1e20 * x[:3], torch.full((1, 4), torch.nan)))
    where = guard.explain(rows, gradient=True).gradient
    assert not np.isnan(where).any()
    assert (where[-1] == 0).all()
    if score == "default":
        assert np.isposinf(where[3:6]).all()
    if score == "OpenMax":  # it is 1 far away
        assert (where == 0).all()


@pytest.mark.parametrize("seed", [-1, 2**70, 1.5])
def test_a_seed_that_generators_do_not_take(seed):
    with pytest.raises(ConfigError, match="seed must be an integer"):
        pf.NetworkGuard(nn.Linear(2, 2), seed=seed)


def test_nan_and_infinity_raise_an_alarm_and_leave_other_rows_alone(blobs, guard):
    _, x, _ = blobs
    rows = x[:4].clone()
    rows[1, 0], rows[2, 0] = torch.nan, torch.inf
    out = guard(rows)
    assert out.alarm[1]
    assert out.alarm[2]
    assert out.reason[1] == "the network's features are NaN or infinite"
    assert torch.allclose(out.score[[0, 3]], guard(x[:4]).score[[0, 3]])


def test_without_labels_and_without_logits():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 4)).eval()
    x = torch.randn(1500, 6)
    guard = pf.NetworkGuard(net, 0.05).fit(x[:700], calibration=x[700:1200])
    assert guard.classes_ == 1
    out = guard(x[1200:])
    assert torch.equal(out.prediction, net(x[1200:]))
    assert out.alarm.float().mean() < 0.12
    assert guard(x[:50] + 20).alarm.all()


def test_select_and_monitor(blobs, guard):
    _, x, _ = blobs
    rows = torch.cat((x[4000:4100], x[:20] + 30))
    chosen = guard.select(rows, fdr=0.1)
    assert chosen[100:].all()
    assert chosen[:100].mean() < 0.1
    monitor = guard.monitor(alpha=0.01)
    monitor.update(guard(x[4000:4500]).score)
    assert not monitor.alarm
    monitor.update(guard(x[4000:4500] + 4).score)
    assert monitor.alarm


# -- files ----------------------------------------------------------------------------------------------------------------


SAVED = {
    "default": lambda: "default",
    "logits": lambda: ["Energy", "Temperature", "KLMatching", "OpenMax", "GEN", scores.MaxLogit(2.0)],
    "features": lambda: ["Mahalanobis", "RelativeMahalanobis", "Mixture", "Neighbors", "ViM", "Residual", "SHE", "ReAct"],
    "others": lambda: ["LayerMahalanobis", "GramMatrices", scores.DeepSVDD(max_steps=5), "GradNorm", "ODIN", scores.MCDropout(3)],
    "flows": lambda: [scores.FeatureFlow(max_steps=5), scores.FeatureFlow(False, "typicality", max_steps=5), scores.FeatureFlow(form="path", max_steps=5)],
}  # fmt: skip


@pytest.mark.parametrize("which", SAVED)
def test_a_file_gives_the_same_guard(blobs, tmp_path, which):
    net, x, y = blobs
    guard = pf.NetworkGuard(net, 0.05, score=SAVED[which](), per_class=which == "default").fit(
        (x[:1000], y[:1000]), calibration=x[1000:1600]
    )
    path = tmp_path / "guard.safetensors"
    guard.save(path)
    again = pf.NetworkGuard.load(path, net)
    a, b = guard(x[2000:2100]), again(x[2000:2100])
    assert torch.equal(a.score, b.score)
    assert torch.equal(a.p_value, b.p_value)
    assert torch.equal(a.alarm, b.alarm)
    assert guard(x[:9] + 20).reason == again(x[:9] + 20).reason
    assert (again.alpha, again.promised_, again.classes_) == (guard.alpha, guard.promised_, guard.classes_)


def test_another_network_is_refused(blobs, guard, tmp_path):
    net, _, _ = blobs
    guard.save(tmp_path / "guard.safetensors")
    other = nn.Sequential(*[type(m)(m.in_features, m.out_features) if isinstance(m, nn.Linear) else m for m in net])
    with pytest.raises(StorageError, match=r"fitted to another network.*fine-tuned"):
        pf.NetworkGuard.load(tmp_path / "guard.safetensors", other.eval())


def test_files_of_ensembles_and_of_other_detectors(blobs, tmp_path):
    net, x, y = blobs
    torch.manual_seed(1)
    other = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    data = {"train": (x[:1000], y[:1000]), "calibration": x[1000:1600]}
    guard = pf.NetworkGuard(net, 0.05, score=scores.DeepEnsemble([other])).fit(**data)
    guard.save(tmp_path / "ensemble.safetensors")
    with pytest.raises(ConfigError, match="members="):
        pf.NetworkGuard.load(tmp_path / "ensemble.safetensors", net)
    again = pf.NetworkGuard.load(tmp_path / "ensemble.safetensors", net, members=[other])
    assert torch.equal(guard(x[2000:2050]).score, again(x[2000:2050]).score)
    with pytest.raises(ConfigError, match="compares 1 other networks, and members= has 2"):
        pf.NetworkGuard.load(tmp_path / "ensemble.safetensors", net, members=[other, other])
    with pytest.raises(StorageError, match=r"ensemble.safetensors: .* weights of members= are others"):
        pf.NetworkGuard.load(tmp_path / "ensemble.safetensors", net, members=[copy.deepcopy(other).double()])
    for score in (scores.External(lambda rows: rows.norm(dim=1)), lambda rows: rows.norm(dim=1)):
        own = pf.NetworkGuard(net, 0.05, score=score).fit(**data)
        assert torch.allclose(own(x[:5]).score, x[:5].norm(dim=1).double())
    with pytest.raises(ConfigError, match="a file cannot store External"):
        own.save(tmp_path / "own.safetensors")


def test_members_of_an_ensemble_are_found_in_any_order(blobs, tmp_path):
    net, x, y = blobs
    torch.manual_seed(1)
    others = [nn.Linear(8, 3).eval() for _ in range(3)]
    guard = pf.NetworkGuard(net, 0.05, score=scores.DeepEnsemble(others)).fit(
        (x[:500], y[:500]), calibration=x[1000:1600]
    )
    guard.save(tmp_path / "guard")
    again = pf.NetworkGuard.load(tmp_path / "guard", net, members=others[::-1])
    assert torch.equal(guard(x[2000:2050]).score, again(x[2000:2050]).score)
    header, tensors = pf.io.read(tmp_path / "guard")
    del header["score"][0]["members"]  # a file of before
    pf.io.write(tmp_path / "old", header, tensors)
    again = pf.NetworkGuard.load(tmp_path / "old", net, members=others)
    assert torch.equal(guard(x[2000:2050]).score, again(x[2000:2050]).score)


def test_a_file_of_another_kind(blobs, tmp_path):
    net, _, _ = blobs
    pf.save(pf.models.NICE(2), tmp_path / "model.safetensors")
    with pytest.raises(StorageError, match="model"):
        pf.NetworkGuard.load(tmp_path / "model.safetensors", net)


@pytest.mark.parametrize(
    "damage",
    [
        lambda h, t: h.update(score=[{"class": "External", "arguments": {"detector": "os.system"}}]),
        lambda h, t: h.update(score=[{"class": "Energy", "arguments": {"temperature": [1]}}]),
        lambda h, t: h.update(score=[{"class": "Energy", "arguments": {"temperatur": 1.0}}]),
        lambda h, t: h.update(score="Energy"),
        lambda h, t: h["options"].update(net=3),
        lambda h, t: h["options"].update(alpha=7),
        lambda h, t: h["options"].update(layers=["nothing"]),
        lambda h, t: h["reader"].update(head="1"),
        lambda h, t: h.update(classes=10**9),
        lambda h, t: t.update({"score.knots": t["score.knots"][:2]}),
        lambda h, t: t.update({"score.0.bank": t["score.0.bank"][:, 0]}),
        lambda h, t: t.update({"calibration": t["calibration"].float()}),
        lambda h, t: t.update({"examples.labels": t["examples.labels"][:3]}),
        lambda h, t: t.pop("calibration classes"),
    ],
)
def test_a_changed_file_fails_with_a_sentence(blobs, guard, tmp_path, damage):
    net, _, _ = blobs
    path = tmp_path / "guard.safetensors"
    guard.save(path)
    header, tensors = pf.io.read(path)
    damage(header, tensors)
    pf.io.write(path, header, tensors)
    with pytest.raises(StorageError, match=r"does not (contain a guard|fit this network)"):
        pf.NetworkGuard.load(path, net)


# -- wrong use ------------------------------------------------------------------------------------------------------------


def test_missing_calibration_rows(blobs):
    net, x, y = blobs
    with pytest.raises(CalibrationError, match=r"more false alarms than alpha.*at least 99 rows.*calibration='train'"):
        pf.NetworkGuard(net).fit((x[:1000], y[:1000]))
    guard = pf.NetworkGuard(net, 0.05).fit((x[:1000], y[:1000]), calibration="train")
    assert not guard.promised_
    with pytest.warns(PushforwardWarning, match="training rows calibrated this guard, .* a monitor may raise an alarm"):
        guard.monitor()
    with pytest.warns(PushforwardWarning, match="training rows calibrated this guard, .* may be above fdr"):
        guard.select(x[:20])
    with pytest.raises(ConfigError, match="calibration must be 'train'"):
        pf.NetworkGuard(net).fit((x[:1000], y[:1000]), calibration="test")


def test_too_few_calibration_rows(blobs):
    net, x, y = blobs
    with pytest.raises(CalibrationError, match=r"needs 99 calibration rows and 20 more .* at least 119 held-out rows"):
        pf.NetworkGuard(net).fit((x[:1000], y[:1000]), calibration=x[1000:1100])
    with pytest.raises(CalibrationError, match="needs at least 99 calibration rows and there are 50"):
        pf.NetworkGuard(net, score="Energy").fit((x[:1000], y[:1000]), calibration=x[1000:1050])
    with pytest.raises(CalibrationError, match=r"predicted as class 0: .* needs at least 99"):
        pf.NetworkGuard(net, per_class=True).fit((x[:1000], y[:1000]), calibration=x[1000:1250])
    enough = pf.NetworkGuard(net, 0.05).fit((x[:1000], y[:1000]), calibration=x[1000:1060])
    assert enough.calibrators_[None].n == 40  # 20 rows set the scale, though they are more than three tenths


def test_a_network_in_training_mode(blobs):
    net, x, y = blobs
    net.train()
    try:
        with pytest.warns(PushforwardWarning, match=r"training mode.*call net.eval()"):
            guard = pf.NetworkGuard(net, 0.05).fit((x[:1000], y[:1000]), calibration=x[1000:1500])
        assert net.training
        assert torch.equal(guard(x[:5]).score, guard(x[:5]).score)
    finally:
        net.eval()


def test_a_score_that_needs_what_the_network_lacks():
    net, x = (
        nn.Sequential(nn.Conv2d(1, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval(),
        torch.rand(20, 1, 8, 8),
    )
    for score, sentence in (("Energy", "needs the logits of a classifier"), ("ViM", "needs the last linear layer")):
        with pytest.raises(ConfigError, match=sentence):
            pf.NetworkGuard(net, score=score).fit(x, calibration=torch.rand_like(x))
    with pytest.raises(ConfigError, match="needs inner layers"):
        pf.NetworkGuard(net, score="LayerMahalanobis", layers=[]).fit(x, calibration=torch.rand_like(x))
    dense = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    rows = torch.randn(300, 4)
    with pytest.raises(ConfigError, match="needs dropout layers"):
        pf.NetworkGuard(dense, 0.1, score="MCDropout", task="classify").fit(rows, calibration=torch.randn(300, 4))


def test_nan_features(blobs):
    net, x, y = blobs
    rows = x[:1000].clone()
    rows[321, 0] = torch.nan
    with pytest.raises(
        InputError, match="features of row 321 of the training data are NaN or infinite: its inputs are too"
    ):
        pf.NetworkGuard(net).fit((rows, y[:1000]), calibration=x[1000:2000])
    rows = x[1000:2000].clone()
    rows[321, 0] = torch.nan
    with pytest.raises(InputError, match="of row 321 of the calibration data"):
        pf.NetworkGuard(net).fit((x[:1000], y[:1000]), calibration=rows)
    broken = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3)).eval()
    with torch.no_grad():
        broken[0].bias[0] = torch.nan
    with pytest.raises(InputError, match=r"row 0 .* though its inputs are finite: check the network's weights"):
        pf.NetworkGuard(broken).fit((x[:1000], y[:1000]), calibration=x[1000:2000])


def test_labels_out_of_range(blobs):
    net, x, y = blobs
    for wrong in (-1, 3):
        labels = y[:1000].clone()
        labels[700] = wrong
        with pytest.raises(InputError, match=f"label of row 700 is {wrong}, and the network has 3 classes"):
            pf.NetworkGuard(net).fit((x[:1000], labels), calibration=x[1000:2000])


def test_no_rows(blobs):
    net, x, y = blobs
    with pytest.raises(InputError, match="the training data gave no"):
        pf.NetworkGuard(net).fit((x[:0], y[:0]), calibration=x[1000:2000])
    with pytest.raises(InputError, match="the calibration data gave no"):
        pf.NetworkGuard(net).fit((x[:1000], y[:1000]), calibration=x[:0])


def test_the_text_of_a_guard_says_what_it_promises(blobs, guard):
    assert repr(guard).startswith("NetworkGuard(Sequential, alpha=0.05, marginal, ")
    assert "calibration rows, statistics: " in repr(guard)
    assert repr(pf.NetworkGuard(blobs[0])) == "NetworkGuard(Sequential, alpha=0.01, not fitted)"


def test_not_fitted(blobs):
    net, x, _ = blobs
    guard = pf.NetworkGuard(net)
    for use in (
        lambda: guard(x),
        lambda: guard.p_value(x),
        lambda: guard.save("x"),
        lambda: guard.explain(x),
        guard.monitor,
    ):
        with pytest.raises(NotFittedError, match=r"not fitted yet: call fit\(train, calibration=held_out\)"):
            use()


@pytest.mark.parametrize(
    "options",
    [{"alpha": 0}, {"alpha": 1.0}, {"guarantee": "sure"}, {"task": "guess"}, {"reservoir": 0}, {"layers": "some"}, {"delta": 2}, {"seed": -1}],
    ids=str,
)  # fmt: skip
def test_impossible_options(blobs, options):
    with pytest.raises(ConfigError):
        pf.NetworkGuard(blobs[0], **options)


def test_unknown_scores(blobs):
    net, x, y = blobs
    for score in ("Softmax", 3, [], ["Energy", "x"], "External", scores.Energy):
        with pytest.raises(ConfigError, match="score must"):
            pf.NetworkGuard(net, score=score).fit((x[:1000], y[:1000]), calibration=x[1000:2000])


def test_a_combination_with_weights_is_a_score(blobs, tmp_path):
    net, x, y = blobs
    data = {"train": (x[:1000], y[:1000]), "calibration": x[1000:2000]}
    combined = scores.Combined([scores.Energy(), scores.Mahalanobis()], [1.0, 3.0])
    guard = pf.NetworkGuard(net, 0.05, score=combined).fit(**data)
    assert guard.score_.weights.tolist() == [0.25, 0.75]
    assert guard.score_ is not combined
    assert not combined.scores[1].fitted
    assert not torch.equal(
        guard(x[:50]).score, pf.NetworkGuard(net, 0.05, score=combined.scores).fit(**data)(x[:50]).score
    )
    guard.save(tmp_path / "guard")
    assert torch.equal(pf.NetworkGuard.load(tmp_path / "guard", net)(x[:50]).score, guard(x[:50]).score)
    default = pf.NetworkGuard(net, 0.05, score=scores.default_score(True, True, True)).fit(**data)
    assert torch.equal(default(x[:50]).score, pf.NetworkGuard(net, 0.05).fit(**data)(x[:50]).score)
    with pytest.raises(ConfigError, match="give the Combined alone"):
        pf.NetworkGuard(net, score=[combined, "Energy"]).fit(**data)


def test_a_monitor_needs_one_ranking(blobs):
    net, x, y = blobs
    guard = pf.NetworkGuard(net, 0.1, per_class=True).fit((x[:1000], y[:1000]), calibration=x[1000:2000])
    with pytest.raises(ConfigError, match="per_class=False"):
        guard.monitor()


def test_no_warning_in_ordinary_use(blobs):
    net, x, y = blobs
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pf.NetworkGuard(net, 0.05).fit(DataLoader(TensorDataset(x[:500], y[:500]), 64), calibration=x[1000:1500])(x[:3])


def test_logits_that_disappear_after_fitting_are_one_sentence():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
    logits = True

    def read(inputs):
        features = net[:2](inputs)
        return scores.Reading(features, features, net[2](features) if logits else None)

    x, y = torch.randn(300, 4), torch.randint(0, 3, (300,))
    guard = pf.NetworkGuard(net, alpha=0.05, read=read).fit((x[:150], y[:150]), calibration=x[150:])
    logits = False
    with pytest.raises(InputError, match=r"fitted on 3 logits .* gave 0"):
        guard(x[:2])


@pytest.mark.parametrize(
    "form",
    [
        lambda x, y: ((x[:, :3], x[:, 3:]), y),
        lambda x, y: ({"a": x[:, :3], "b": x[:, 3:]}, y),
        lambda x, y: [[x[:, :3].numpy(), x[:, 3:].double().numpy()], y],
        lambda x, y: ((x[:, :3], x[:, 3:]), y[:, None].numpy()),
        lambda x, y: ((x[:, :3], x[:, 3:]), y.tolist()),
    ],
    ids=["tuple", "dictionary", "lists and arrays", "labels in a column", "list of labels"],
)
def test_several_inputs_with_labels(blobs, form):
    net, x, y = blobs

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.net(torch.cat((a, b), 1))

    guard = pf.NetworkGuard(Two().eval(), 0.05, score="Mahalanobis")
    guard.fit(form(x[:1000], y[:1000]), calibration=form(x[1000:1500], y[1000:1500]))
    one = pf.NetworkGuard(net, 0.05, score="Mahalanobis").fit((x[:1000], y[:1000]), calibration=x[1000:1500])
    assert guard.classes_ == 3
    assert torch.equal(guard((x[:50, :3], x[:50, 3:])).score, one(x[:50]).score)
    assert torch.equal(guard._labeled[1].sort().values, y[1000:1500].sort().values)  # for selective


def test_lists_and_tuples_of_batches_are_batches(blobs):
    net, x, y = blobs
    one = pf.NetworkGuard(net, 0.05, score="Mahalanobis").fit((x[:1000], y[:1000]), calibration=x[1000:1500])
    for kind in (list, tuple):
        train = kind([(x[:500], y[:500]), (x[500:1000], y[500:1000])])
        guard = pf.NetworkGuard(net, 0.05, score="Mahalanobis").fit(train, calibration=[x[1000:1250], x[1250:1500]])
        assert torch.allclose(guard(x[:50]).score, one(x[:50]).score)


def test_labels_that_are_no_integers(blobs):
    net, x, y = blobs
    for labels, name in ((y.float(), "long"), (nn.functional.one_hot(y), "argmax")):
        with pytest.warns(PushforwardWarning, match=rf"guarded as a regression.*labels\.{name}\("):
            guard = pf.NetworkGuard(net, 0.05).fit((x[:500], labels[:500]), calibration=x[1000:1500])
        assert guard.classes_ == 1
        with pytest.raises(InputError, match="to classify, labels must be integers"):
            pf.NetworkGuard(net, 0.05, task="classify").fit((x[:500], labels[:500]), calibration=x[1000:1500])
    with pytest.raises(InputError, match=r"must be numbers; got str: give labels as the indices of the classes"):
        pf.NetworkGuard(net).fit((x[:500], y[:500].numpy().astype(str)), calibration=x[1000:1500])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # targets that are no classes
        pf.NetworkGuard(net, 0.05).fit((x[:500], x[:500, :3]), calibration=x[1000:1500])


def test_several_heads_are_named(blobs):
    net, x, y = blobs

    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.other = net, nn.Linear(8, 4)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"other": self.other(x), "kind": self.net(x)}

    heads, data = Heads().eval(), {"train": (x[:500], y[:500]), "calibration": x[1000:1500]}
    with pytest.warns(PushforwardWarning, match="takes the first for the logits.*one of 'other', 'kind'"):
        pf.NetworkGuard(heads, 0.05).fit(**data)
    assert pf.NetworkGuard(heads, 0.05, logits="kind").fit(**data).classes_ == 3


def test_labels_of_a_report_and_of_an_evaluation(blobs, guard):
    _, x, y = blobs
    with pytest.raises(InputError, match="label of row 3 is 7, and the network has 3 classes"):
        guard.report((x[3000:3100], torch.where(torch.arange(100) == 3, 7, y[3000:3100])))
    odd = torch.cat((torch.zeros(100), torch.ones(20)))  # not integers, and not classes of the network
    rows = torch.cat((x[3000:3100], x[:20] + 30))
    assert guard.evaluate((rows, odd)).to_dict() == guard.evaluate(rows, odd.numpy()).to_dict()


def test_calibration_with_the_training_rows_is_refused(blobs):
    net, x, y = blobs
    rows = x[:300], y[:300]
    for train, calibration in ((rows, rows), (rows, (rows[0], rows[1])), ([rows], [rows]), (rows[0], rows[0])):
        with pytest.raises(CalibrationError, match="the training rows themselves"):
            pf.NetworkGuard(net, 0.05).fit(train, calibration=calibration)


def test_views_and_copies_of_the_training_rows_are_refused(blobs):
    net, x, y = blobs
    train, data, array = (x[:300], y[:300]), TensorDataset(x[:300], y[:300]), x.numpy()
    whole = TensorDataset(x, y)
    shared = [
        (train, x[:300]),
        (train, x[:300].clone()),
        (train, (x[200:500], y[200:500])),
        (train, x[::2]),
        (train, {"input": array[:300]}),
        (array[:300], array[100:600]),
        (pd.DataFrame(array[:300]), pd.DataFrame(array[:300].copy())),
        (DataLoader(data, 50, shuffle=True), DataLoader(data, 50)),
        (DataLoader(data, 50), DataLoader(TensorDataset(x[:300]), 50)),
        (Subset(whole, range(300)), Subset(whole, range(299, 900))),
        (x[:300].bfloat16(), x[:300].bfloat16()),
    ]
    for rows, calibration in shared:
        with pytest.raises(CalibrationError, match="the training rows themselves, or some of them"):
            pf.NetworkGuard(net, 0.05).fit(rows, calibration=calibration)
    loader = [DataLoader(whole, 50, sampler=SubsetRandomSampler(part)) for part in (range(300), range(300, 900))]
    for rows, calibration in (
        (train, x[300:800]),
        (x[::2], x[1::2]),
        loader,
        (torch.zeros(300, 8), torch.zeros(500, 8)),
    ):
        assert not share_rows(rows, calibration)


def test_a_guard_of_a_network_that_changed_is_saved_with_a_warning(blobs, tmp_path):
    net, x, y = blobs
    own = copy.deepcopy(net)
    guard = pf.NetworkGuard(own, 0.05).fit((x[:300], y[:300]), calibration=x[300:600])
    guard.save(tmp_path / "before")
    with torch.no_grad():
        next(own.parameters()).mul_(1.5)
    with pytest.raises(ConfigError, match="weights of the network have changed since the guard was fitted"):
        guard.recalibrate(x[600:900])
    with pytest.warns(PushforwardWarning, match="have changed since the guard was fitted"):
        guard.save(tmp_path / "after")
    with pytest.raises(StorageError, match="network"):
        pf.NetworkGuard.load(tmp_path / "after", own)
    assert pf.NetworkGuard.load(tmp_path / "after", net).digest_ == guard.digest_


def test_a_guard_is_calibrated_again_on_inputs_that_changed(blobs, tmp_path):
    """Inputs with more noise, which are normal now; the statistics are those of the training inputs."""
    net, x, y = blobs
    guard = pf.NetworkGuard(net, 0.05).fit((x[:1000], y[:1000]), calibration=x[1000:1600])
    noisy = x[2000:6000] + 0.7 * torch.randn(4000, 8, generator=torch.Generator().manual_seed(0))
    assert guard(noisy[2000:]).alarm.float().mean() > 0.08
    before = guard.p_value(noisy[:50])
    with pytest.raises(CalibrationError):
        guard.recalibrate(noisy[:5])
    np.testing.assert_array_equal(guard.p_value(noisy[:50]), before)
    guard.recalibrate((noisy[:2000], y[2000:4000]))
    low, high = realized_interval(guard.calibrators_[None].n, 2000, 0.05, level=0.999)
    assert low <= float(guard(noisy[2000:]).alarm.float().mean()) <= high
    assert guard.selective(coverage=0.9, temperature_part=0.0).coverage == 0.9
    guard.save(tmp_path / "g")
    np.testing.assert_array_equal(pf.NetworkGuard.load(tmp_path / "g", net).p_value(noisy), guard.p_value(noisy))


def test_one_logit_for_two_classes():
    """What the error says works: the network returns the logits 0 and z."""
    torch.manual_seed(0)
    x = torch.randn(1200, 4)
    y = (x[:, 0] > 0).long()
    net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1)).eval()
    with pytest.raises(InputError, match=r"one column.*torch.cat\(\[torch.zeros_like\(z\), z\], 1\)"):
        pf.NetworkGuard(net, 0.05).fit((x[:400], y[:400]), calibration=x[400:800])

    class TwoLogits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            z = self.net(x)
            return torch.cat([torch.zeros_like(z), z], 1)

    guard = pf.NetworkGuard(TwoLogits().eval(), 0.05).fit((x[:400], y[:400]), calibration=x[400:800])
    assert guard(x[800:]).alarm.float().mean() < 0.12
    assert guard(30 * torch.ones(5, 4)).alarm.all()
    np.testing.assert_array_equal(guard(x[:9]).prediction, (net(x[:9])[:, 0] > 0).long())


def test_streams_do_not_keep_their_inputs():
    """Batches of a generator are freed while the next ones are scored, and so are training rows that are set aside."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    alive: list[weakref.ref[Tensor]] = []

    def batches(count: int, labels: bool = False):
        for _ in range(count):
            gc.collect()
            assert sum(ref() is not None for ref in alive) <= 2
            x = torch.randn(30, 4)
            alive.append(weakref.ref(x))
            y = torch.arange(30) % 2
            yield (x, y) if labels else x
            del x

    guard = pf.NetworkGuard(net, 0.05, score="Mahalanobis")
    gc.collect()
    gc.freeze()  # each collection then looks at new objects alone, not at those of the whole process
    try:
        guard.fit(batches(10, True), calibration="train")
        alive.clear()
        assert len(guard.p_value(batches(10))) == 300
        alive.clear()
        assert 0 <= guard.evaluate(batches(10, True)).auroc.value <= 1
    finally:
        gc.unfreeze()


def test_a_file_for_the_module_in_a_wrapper_says_so(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    x = torch.randn(300, 4)
    pf.NetworkGuard(net, 0.05, score="Mahalanobis").fit((x[:100], torch.arange(100) % 3), calibration=x[100:]).save(
        tmp_path / "guard.safetensors"
    )
    with pytest.raises(StorageError, match=r"module in this DataParallel: pass net\.module"):
        pf.NetworkGuard.load(tmp_path / "guard.safetensors", nn.DataParallel(net))


def test_recalibration_counts_in_its_own_autocast():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    x = torch.randn(600, 4)
    guard = pf.NetworkGuard(net, 0.05, score="Mahalanobis").fit(
        (x[:100], torch.arange(100) % 3), calibration=x[100:300]
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        guard.recalibrate(x[300:])
        assert guard.autocast_ == "bfloat16"
        guard.p_value(x[:10])
    with pytest.warns(PushforwardWarning, match="is called without torch.autocast"):
        guard.p_value(x[:10])
