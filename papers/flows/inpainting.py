"""Fill in the lower half of digits by gradient ascent on the likelihood (NICE, sec. 5.2), and compare it with simple ways."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.common.datasets import load_labels
from papers.distances import principal
from papers.experiment import Experiment, all_hold, clearly_below, spread
from pushforward.models import Model
from pushforward.models.manipulation import inpaint

__all__ = ["study_inpainting"]

_ASCENT: dict[str, Any] = {"rate": 1.0, "max_gradient": 10.0, "noise": 1.0}
"""Chosen on training images that are held out, among eight settings, by the error of the filled half."""
_NEIGHBORS = 10


def study_inpainting(experiment: Experiment, models: Sequence[Model], train: Tensor, test: Tensor) -> Tensor:
    """Fill test images with each model, and report how far they are from the images and how often the digit is recognized.

    Args:
        experiment: to report in.
        models: flows of MNIST, one for each seed.
        train: training images ``(n, 1, 28, 28)``, the first ones of the file.
        test: test images, the first ones of the file.

    Returns:
        Some of the filled images, of the first model.
    """
    judge = _Judge(experiment, train, test)
    found = [
        experiment.measure(f"inpainting {seed}", lambda m=model: judge.ascent(m)) for seed, model in enumerate(models)
    ]
    paper = experiment.measure("inpainting with the paper's steps", lambda: judge.paper(models[0]))
    other = experiment.measure("inpainting, other ways", judge.others)

    def column(name: str) -> list[float]:
        return [each[name] for each in found]

    count, seeds = len(judge.images), len(found)
    experiment.report(
        "inpainting by gradient ascent on the likelihood (sec. 5.2) raises it",
        ours=f"from {spread(column('before'), 0)} to {spread(column('after'), 0)} nats per image; the images themselves have {spread(column('whole'), 0)}",
        confirmed=clearly_below(column("before"), column("after")),
        seeds=seeds,
        note=f"lower half of {count} test images, {judge.steps:,} steps from uniform noise; step i is 1 / (100 + i), each pixel's gradient is clipped to ±10, and noise "
        f"of scale 1 is added to it as in the paper; with the paper's own steps, 10 / (100 + i) without a bound, the images end at {paper:.0f} nats (400 steps, one seed)",
    )
    means = [[each] * seeds for each in (other["mean"]["error"], other["mean"]["right"])]
    experiment.report(
        "filled halves are nearer to the true ones than the mean of the training images is, and more digits are recognized",
        paper="pictures",
        ours=f"root mean square error {spread(column('error'), 1)} against {other['mean']['error']:.1f} gray levels; "
        f"{spread([100 * each for each in column('right')], 1)} % of the digits are recognized, {100 * other['mean']['right']:.1f} % with the mean, "
        f"{100 * other['images']['right']:.1f} % of whole images",
        confirmed=all_hold([clearly_below(column("error"), means[0]), clearly_below(means[1], column("right"))]),
        seeds=seeds,
        note=f"by most of {_NEIGHBORS} neighbors in 30 whitened principal components of {judge.few:,} training images; filled with the lower half of the training image whose "
        f"upper half is nearest: {other['nearest']['error']:.1f} gray levels and {100 * other['nearest']['right']:.1f} %; the steps were chosen on held-out training images by the error",
    )
    return torch.tensor(found[0]["images"], dtype=torch.float32)


class _Judge:
    """The images to fill in, and what is measured of filled ones."""

    def __init__(self, experiment: Experiment, train: Tensor, test: Tensor) -> None:
        from sklearn.neighbors import KNeighborsClassifier

        self.images = test[: experiment.choose(smoke=4, quick=100, full=1000)].float()
        self.steps = experiment.choose(smoke=3, quick=2000, full=2000)
        self.few = experiment.choose(smoke=100, quick=10_000, full=50_000)
        self.train = train[: self.few]
        self.known = torch.zeros(1, 28, 28, dtype=torch.bool)
        self.known[:, :14] = True
        self.features = principal(train)
        known, self.labels = (
            load_labels("mnist", train=part, folder=experiment.data).numpy() for part in (True, False)
        )
        self.classifier = KNeighborsClassifier(_NEIGHBORS).fit(self.features(self.train).numpy(), known[: self.few])

    def ascent(self, model: Model) -> dict[str, Any]:
        """Likelihoods before and after the ascent, and the filled images."""
        noise = torch.randint(0, 256, self.images.shape, generator=torch.Generator().manual_seed(0)).float()
        filled = inpaint(model, self.images, self.known, steps=self.steps, **_ASCENT)
        start = torch.where(self.known, self.images, noise)
        likelihoods = {"before": start, "after": filled, "whole": self.images}
        return (
            {name: _nats(model, x) for name, x in likelihoods.items()}
            | self.of(filled)
            | {"images": filled[:12].round().int().tolist()}
        )

    def paper(self, model: Model) -> float:
        """The likelihood after the ascent with the step sizes of the paper."""
        return _nats(model, inpaint(model, self.images, self.known, steps=min(400, self.steps)))

    def others(self) -> dict[str, dict[str, float]]:
        """Fills without a model: the mean of the training images, and the half of the nearest one."""
        upper = self.known.expand(self.train[:1].shape)[0]
        distance = torch.cdist(self.images[:, upper], self.train[:, upper].float())
        nearest = self.train[distance.argmin(1)].float()
        fills = {
            "mean": self.train.float().mean(0).expand(self.images.shape),
            "nearest": nearest,
            "images": self.images,
        }
        return {name: self.of(torch.where(self.known, self.images, x)) for name, x in fills.items()}

    def of(self, filled: Tensor) -> dict[str, float]:
        """The root mean square error of the filled half, gray levels, and the fraction of recognized digits."""
        error = (filled - self.images)[:, ~self.known.expand(filled.shape[1:])].square().mean().sqrt()
        found = self.classifier.predict(self.features(filled).numpy())
        return {"error": error.item(), "right": float((found == self.labels[: len(filled)]).mean())}


def _nats(model: Model, x: Tensor) -> float:
    with torch.no_grad():
        return model.evaluate(x).value.mean().item()
