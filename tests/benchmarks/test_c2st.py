"""The batched classifier test, against the Bayes classifier and against scikit-learn's perceptron."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from benchmarks.c2st import c2st, c2st_many


def shifted(shift, count=1000, width=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, width, generator=generator)
    y = torch.randn(count, width, generator=generator)
    y[:, 0] += shift
    return x, y


@pytest.mark.parametrize("shift", [0.0, 1.0, 3.0])
def test_the_accuracy_is_that_of_the_bayes_classifier(shift):
    """Normal distributions at a distance s: the best accuracy is Phi(s / 2)."""
    best = 0.5 * (1 + math.erf(shift / 2 / math.sqrt(2)))
    assert c2st(*shifted(shift)) == pytest.approx(best, abs=0.04)


def test_several_pairs_at_once_give_what_each_gives_alone():
    pairs = [shifted(0.5, seed=1), shifted(2.0, seed=2)]
    alone = [c2st(*pair) for pair in pairs]
    np.testing.assert_allclose(c2st_many(pairs), alone, atol=0.04)


@pytest.mark.slow
def test_scikit_learns_perceptron_agrees():
    from sklearn.model_selection import KFold, cross_val_score
    from sklearn.neural_network import MLPClassifier

    x, y = shifted(1.0, width=3)
    data = torch.cat(((x - x.mean(0)) / x.std(0), (y - x.mean(0)) / x.std(0))).numpy()
    labels = np.repeat([0, 1], len(x))
    classifier = MLPClassifier((30, 30), max_iter=10_000, random_state=1)
    folds = KFold(5, shuffle=True, random_state=1)
    expected = float(np.mean(cross_val_score(classifier, data, labels, cv=folds)))
    assert c2st(x, y) == pytest.approx(expected, abs=0.03)
