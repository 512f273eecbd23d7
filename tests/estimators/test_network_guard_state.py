"""What a guard of a network keeps: its own score, and a state that a failed fit leaves as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pushforward as pf
from pushforward.detection import network as scores
from pushforward.errors import CalibrationError, InputError
from pushforward.estimators.validation import NotFittedError


@pytest.fixture(scope="module")
def rows() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(1500, 6)
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)).eval()


def fitted(net: nn.Module, x: Tensor, y: Tensor, score: object = "default", scale: float = 1.0) -> pf.NetworkGuard:
    guard = pf.NetworkGuard(net, 0.05, score=score)
    return guard.fit((scale * x[:600], y[:600]), calibration=scale * x[600:1100])


class Lengths:
    """A detector of features in the form of pytorch-ood."""

    mean = None

    def fit_features(self, z: Tensor, y: Tensor) -> None:
        self.mean = z.mean(0)

    def predict(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def predict_features(self, z: Tensor) -> Tensor:
        return (z - self.mean).norm(dim=1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: scores.Neighbors(k=5),
        lambda: scores.External(Lengths(), reads="features"),
        lambda: [scores.Mahalanobis(), scores.Neighbors(k=3)],
    ],
    ids=["score", "detector", "several"],
)
def test_a_score_of_two_guards_is_fitted_for_each(rows, make):
    x, y = rows
    score, net = make(), network()
    first = fitted(net, x, y, score)
    before = first.anomaly_score(x[1100:])
    second = fitted(net, x, y, score, scale=10)
    np.testing.assert_array_equal(first.anomaly_score(x[1100:]), before)
    assert (second.p_value(10 * x[1100:]) <= 0.05).mean() < 0.12
    assert first.score is second.score is score


def test_members_of_an_ensemble_are_not_copied(rows):
    x, y = rows
    member = network()
    guard = fitted(network(), x, y, scores.DeepEnsemble([member]))
    (part,) = guard.score_.scores
    assert part is not guard.score
    assert part.networks() == (member,)


def broken(x: Tensor, y: Tensor) -> list[dict[str, object]]:
    """Training and calibration rows that `fit` refuses, early or late."""
    wrong = 5 * x[600:1100]
    wrong[7] = torch.nan
    train = 5 * x[:600], y[:600]
    return [
        {"train": (wrong, y[600:1100]), "calibration": x[600:1100]},
        {"train": train, "calibration": wrong},
        {"train": train, "calibration": x[600:610]},
        {"train": train, "calibration": [x[600:900], x[900:1000, :3]]},
    ]


@pytest.mark.parametrize("score", ["default", "Mahalanobis"])
@pytest.mark.parametrize("which", range(4))
def test_a_fit_that_fails_leaves_the_guard_as_it_was(rows, score, which):
    x, y = rows
    net = network()
    guard, new = fitted(net, x, y, score), pf.NetworkGuard(net, 0.05, score=score)
    before, state = guard.p_value(x[1100:]), dict(vars(guard))
    for each in (guard, new):
        with pytest.raises((InputError, CalibrationError)):
            each.fit(**broken(x, y)[which])
    np.testing.assert_array_equal(guard.p_value(x[1100:]), before)
    assert vars(guard) == state
    assert not new.reader_.ready
    with pytest.raises(NotFittedError):
        new(x[1100:])
