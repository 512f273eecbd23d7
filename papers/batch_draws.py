"""Batches of rows of several image sets, and how often tests reject them: what the reproduction of InFlow draws from."""

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

__all__ = ["ID", "TESTS", "Views", "p_value", "places", "rate"]

Array = NDArray[np.float64]
ID = "Fashion-MNIST"
TESTS: dict[str, tuple[str, type[BatchTest]]] = {
    "MMD of pixels": ("pixels", MMDTest),
    "MMD of a random CNN": ("cnn", MMDTest),
    "MMD of latents": ("latents", MMDTest),
    "KS of latents": ("latents", ProjectionKSTest),
    "typicality": ("log p", TypicalityTest),
}


class Views:
    """Each row's features, and its log-likelihood with the gate open and closed; computed once."""

    def __init__(self, sets: dict[str, Tensor], model: ImageInFlow) -> None:
        self.sets, self.model = sets, model
        self.random = RandomFeatures((1, 28, 28))
        self.kinds: dict[str, Callable[[Tensor], Tensor]] = {
            "pixels": lambda x: x.flatten(1).float() / 255,
            "cnn": self.random,
            "latents": model.encode,
            "log p": lambda x: model.evaluate(x).value.double(),
            "closed": lambda x: model.gated(0.0).evaluate(x).value.double(),
        }
        self.of = cache(self._of)

    def _of(self, name: str, kind: str) -> Array:
        return by_batches(self.kinds[kind], self.sets[name], 256).numpy()


Rows = dict[str, NDArray[np.int64]]


def places(
    views: Views, parts: dict[str, int], rng: np.random.Generator, reference: int
) -> tuple[NDArray[np.int64], Rows]:
    """Reference rows, and a batch of so many rows of each set, apart from each other and drawn anew for every test."""
    rows = {name: rng.permutation(len(views.sets[name])) for name in (ID, *parts)}
    return rows[ID][:reference], {
        name: rows[name][reference:][:count] if name == ID else rows[name][:count] for name, count in parts.items()
    }


def p_value(
    views: Views, test: str, parts: dict[str, int], rng: np.random.Generator, reference: int, permutations: int = 99
) -> float:
    """Of such a batch; the same way whatever is in it."""
    kind, make = TESTS[test]
    known, rows = places(views, parts, rng, reference)
    batch = np.concatenate([views.of(name, kind)[chosen] for name, chosen in rows.items()])
    seed = int(rng.integers(2**31))
    return make(views.of(ID, kind)[known], permutations=permutations, seed=seed).p_value(batch)


def rate(experiment: Experiment, views: Views, test: str, parts: dict[str, int], runs: int, reference: int) -> float:
    """Share of batches that are rejected at 5%."""
    rng = np.random.default_rng([runs, *parts.values()])
    key = f"{test}, {' and '.join(f'{count} {name}' for name, count in parts.items())}, {runs} runs"
    return experiment.measure(
        key, lambda: float(np.mean([p_value(views, test, parts, rng, reference) <= 0.05 for _ in range(runs)]))
    )
