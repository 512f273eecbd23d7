"""Scores that a user writes: the base class finds rows of another shape and results that are no scores."""

from __future__ import annotations

import pytest
import torch

import pushforward as pf
from pushforward.detection.scores import LikelihoodPath, Score
from pushforward.errors import ConfigError, InputError, KindError


class Distance(Score):
    def __init__(self) -> None:
        super().__init__()
        self.declare(mean=1)

    def _learn(self, reference):
        self.mean = reference.double().flatten(1).mean(0)

    def _score(self, x):
        return (x.double().flatten(1) - self.mean).norm(dim=1)


class Rows(Score):
    def _score(self, x):
        return x


class Largest(Score):
    def _score(self, x):
        return x.flatten(1).amax(1)


def rows(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(2, 1), (2, 2), (2, 3, 1), (0, 1)])
def test_rows_of_another_shape_than_fitted(shape):
    score = Distance().fit(rows(9, 3))
    with pytest.raises(
        InputError, match=r"Distance was fitted on rows of (3 values; got rows of \d|shape \(3,\); got)"
    ):
        score(rows(*shape))
    assert score.fit(rows(9, *shape[1:]))(rows(*shape)).shape == shape[:1]


def test_a_score_that_learns_nothing_takes_rows_of_any_shape():
    score = Largest().fit(rows(9, 3))
    assert score(rows(2, 5)).shape == (2,)


def test_a_result_that_is_not_one_number_for_each_row():
    with pytest.raises(ConfigError, match=r"Rows._score must give one number for each row"):
        Rows()(rows(4, 3))


def test_calling_a_statistic():
    model = pf.models.NICE(3, layers=1, hidden=(4,))
    with pytest.raises(KindError, match=r"call values\(x\) for them, or .*TwoSided\(LikelihoodPath"):
        LikelihoodPath(model).fit(rows(50, 3))(rows(2, 3))


def test_a_score_is_not_saved_as_a_model(tmp_path):
    with pytest.raises(ConfigError, match=r"a score is stored with its guard, by Guard\(score="):
        pf.save(Distance(), tmp_path / "s.safetensors")
