"""Draw batches of images from several data sets and measure how often tests reject them, for the reproduction of InFlow."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from papers.experiment import Experiment
from pushforward.detection import BatchTest, MMDTest, ProjectionKSTest, RandomFeatures, TypicalityTest
from pushforward.detection.batching import by_batches
from pushforward.models import ImageInFlow

__all__ = ["ID", "TESTS", "FeatureCache", "draw_rows", "p_value", "rejection_rate"]

Array = NDArray[np.float64]
ID = "Fashion-MNIST"
TESTS: dict[str, tuple[str, type[BatchTest]]] = {
    "MMD of pixels": ("pixels", MMDTest),
    "MMD of a random CNN": ("cnn", MMDTest),
    "MMD of latents": ("latents", MMDTest),
    "KS of latents": ("latents", ProjectionKSTest),
    "typicality": ("log p", TypicalityTest),
}


class FeatureCache:
    """The features of each image and its log-likelihood with the gate open and closed, each computed once."""

    def __init__(self, sets: dict[str, Tensor], model: ImageInFlow) -> None:
        self.sets, self.model = sets, model
        self.random = RandomFeatures((1, 28, 28))
        self.functions: dict[str, Callable[[Tensor], Tensor]] = {
            "pixels": lambda x: x.flatten(1).float() / 255,
            "cnn": self.random,
            "latents": model.encode,
            "log p": lambda x: model.evaluate(x).value.double(),
            "closed": lambda x: model.gated(0.0).evaluate(x).value.double(),
        }
        self.get = cache(self._compute)

    def _compute(self, name: str, kind: str) -> Array:
        return by_batches(self.functions[kind], self.sets[name], 256).numpy()


Rows = dict[str, NDArray[np.int64]]


def draw_rows(
    features: FeatureCache, parts: dict[str, int], rng: np.random.Generator, reference: int
) -> tuple[NDArray[np.int64], Rows]:
    """Draw the row numbers of the reference and of a batch that has a given number of rows from each set, without overlap."""
    rows = {name: rng.permutation(len(features.sets[name])) for name in (ID, *parts)}
    return rows[ID][:reference], {
        name: rows[name][reference:][:count] if name == ID else rows[name][:count] for name, count in parts.items()
    }


def p_value(
    features: FeatureCache,
    test: str,
    parts: dict[str, int],
    rng: np.random.Generator,
    reference: int,
    permutations: int = 99,
) -> float:
    """Draw a reference and a batch as :func:`draw_rows` does, and return the p-value of the test."""
    kind, make = TESTS[test]
    reference_rows, rows = draw_rows(features, parts, rng, reference)
    batch = np.concatenate([features.get(name, kind)[chosen] for name, chosen in rows.items()])
    seed = int(rng.integers(2**31))
    return make(features.get(ID, kind)[reference_rows], permutations=permutations, seed=seed).p_value(batch)


def rejection_rate(
    experiment: Experiment, features: FeatureCache, test: str, parts: dict[str, int], runs: int, reference: int
) -> float:
    """The fraction of batches that the test rejects at 5%."""
    rng = np.random.default_rng([runs, *parts.values()])
    key = f"{test}, {' and '.join(f'{count} {name}' for name, count in parts.items())}, {runs} runs"
    return experiment.measure(
        key, lambda: float(np.mean([p_value(features, test, parts, rng, reference) <= 0.05 for _ in range(runs)]))
    )
