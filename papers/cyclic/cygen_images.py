"""CyGen on images: samples of chains, their classes, and neighbors of codes, beside a VAE and a DAE of the same networks."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.common.datasets import load_labels
from papers.distances import principal
from papers.experiment import Experiment, all_hold, clearly_below, spread
from pushforward.models import CyGen
from pushforward.models.latent.autoencoder import mmd
from pushforward.transforms import Chain, Sylvester

__all__ = ["SETS", "study_images"]

KINDS = ("VAE", "DAE", "CyGen (PT)")
SETS = ("mnist", "fashion-mnist")
SHOWN = 12
"""Images of a kind in the picture."""

Found = dict[str, list[dict[str, Any]]]
"""For each kind the figures of each seed."""


class Judge:
    """Compares samples with the test images of one set.

    Attributes:
        count: number of samples.
        few: number of training images among which the neighbors are that give samples their classes.
    """

    def __init__(self, experiment: Experiment, name: str) -> None:
        rows = experiment.choose(smoke=150, quick=None, full=None)
        self.rows, self.test = (experiment.images(name, train=part, rows=rows) for part in (True, False))
        self.labels = [
            load_labels(name, train=part, folder=experiment.data)[: len(x)].numpy()
            for part, x in ((True, self.rows), (False, self.test))
        ]
        self.count = experiment.choose(smoke=40, quick=1000, full=5000)
        self.few = experiment.choose(smoke=100, quick=10_000, full=50_000)
        self.features = principal(self.rows)

    def samples(self, drawn: Tensor) -> dict[str, Any]:
        """Their squared kernel distance, the total variation of the fractions of their classes, and some of them."""
        drawn, test = drawn.clamp(0, 255), self.test[: self.count]
        return {
            "distance": mmd(self.features(drawn), self.features(test)).item(),
            "classes": 0.5 * float(np.abs(self._shares(drawn) - self._shares(test)).sum()),
            "images": drawn[:SHOWN].round().int().tolist(),
        }

    def codes(self, model: CyGen) -> float:
        """The fraction of test images whose class is that of most neighbors of their code."""
        known, new = (torch.cat([model.code(part) for part in images.split(1000)]) for images in (self.rows, self.test))
        return float((self._neighbors(known, new, len(known)) == self.labels[1]).mean())

    def other_codes(self, model: CyGen, seed: int) -> dict[str, float]:
        """The fraction of right classes by neighbors of drawn codes, and by a linear classifier of code means."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        generator = torch.Generator().manual_seed(seed)
        means = [torch.cat([model.code(part) for part in images.split(1000)]) for images in (self.rows, self.test)]
        drawn = [
            torch.cat([model.pair.draw_z(model.chain[0].encode(part).z, generator) for part in images.split(1000)])
            for images in (self.rows, self.test)
        ]
        linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(
            means[0].numpy(), self.labels[0]
        )
        return {
            "10 nearest neighbors of drawn codes": float((self._neighbors(*drawn, len(drawn[0])) == self.labels[1]).mean()),
            "a linear classifier of code means": float(linear.score(means[1].numpy(), self.labels[1])),
        }  # fmt: skip

    def _shares(self, images: Tensor) -> np.ndarray:
        """The fractions of the classes."""
        known, new = self.features(self.rows[: self.few]), self.features(images)
        return np.bincount(self._neighbors(known, new, self.few), minlength=10) / len(images)

    def _neighbors(self, known: Tensor, new: Tensor, limit: int) -> np.ndarray:
        """The class of most of ten neighbors."""
        from sklearn.neighbors import KNeighborsClassifier

        return KNeighborsClassifier(10).fit(known[:limit].numpy(), self.labels[0][:limit]).predict(new.numpy())


def study_images(experiment: Experiment, name: str) -> None:
    """Distances of samples to test images, classes of samples, and neighbors of codes."""
    judge = Judge(experiment, name)
    lengths = experiment.choose(smoke=(2, 4), quick=(100, 1000), full=(100, 1000))
    found = {
        kind: [
            experiment.measure(
                f"{name} {kind} {seed} judged", partial(_measure, experiment, judge, name, lengths, kind, seed)
            )
            for seed in experiment.repeats
        ]
        for kind in KINDS
    }
    sources = [("VAE", "prior"), *((kind, str(length)) for kind in KINDS for length in lengths)]
    _report_samples(experiment, judge, name, found, sources)
    _report_codes(experiment, judge, name, found)
    _report_other_codes(experiment, judge, name)
    pictures = {_label(kind, source): torch.tensor(found[kind][0][source]["images"]) for kind, source in sources}
    experiment.strip(f"samples-{name}", {"test": judge.test[:SHOWN], **pictures})


def _steps(experiment: Experiment) -> int:
    return experiment.choose(smoke=3, quick=900, long=9000, full=60_000)


def _model(experiment: Experiment, kind: str, rows: Tensor, name: str, seed: int) -> CyGen:
    """A VAE, a denoising autoencoder, or a pair pretrained as a VAE for two thirds of the steps, all with the same networks."""
    steps = _steps(experiment)

    def make() -> CyGen:
        reflections = experiment.choose(smoke=2, quick=8, full=8)
        flows = experiment.choose(smoke=1, quick=2, full=4)
        return CyGen(
            (1, 28, 28), 10, levels=256, scale=0.2, penalty_weight=0.0 if kind == "DAE" else 1e-5, samples=1,
            objective="cyclic" if kind == "DAE" else "elbo", hidden=experiment.choose(smoke=(16,), quick=(400, 400), full=(400, 400)),
            flow=Chain(*(Sylvester(10, reflections, seed=k) for k in range(flows))),
        )  # fmt: skip

    shared: dict[str, Any] = {"seed": seed, "batch_size": 128}
    if kind != "CyGen (PT)":
        return experiment.train(f"{name} {kind} {seed}", make, rows, None, max_steps=steps, **shared)[0]
    warm = 2 * steps // 3
    first, _ = experiment.train(f"{name} {kind} {seed} elbo", make, rows, None, max_steps=warm, **shared)

    def go_on() -> CyGen:
        first.set_objective("cyclic")
        return first

    return experiment.train(f"{name} {kind} {seed} cyclic", go_on, rows, None, max_steps=steps - warm, **shared)[0]


@torch.no_grad()
def _measure(
    experiment: Experiment, judge: Judge, name: str, lengths: tuple[int, ...], kind: str, seed: int
) -> dict[str, Any]:
    """Samples of chains from noise after each length, of a VAE also from its prior; and the codes."""
    model, found, x, done = _model(experiment, kind, judge.rows, name, seed), {}, None, 0
    generator = torch.Generator().manual_seed(seed)
    if kind == "VAE":
        found["prior"] = judge.samples(model.decode(torch.randn(judge.count, 10, generator=generator)))
    for length in lengths:
        x, done = model.gibbs(judge.count, length - done, seed=1000 * seed + length, start=x), length
        # Without the decoder's noise, as the paper: its mean at the code of the last image.
        codes = model.pair.draw_z(model.chain[0].encode(x).z, generator)
        found[str(length)] = judge.samples(model.decode(codes))
    return found | {"right": judge.codes(model)}


def _label(kind: str, source: str) -> str:
    return f"{kind} prior" if source == "prior" else f"{kind} {int(source):,} steps"


def _report_samples(
    experiment: Experiment, judge: Judge, name: str, found: Found, sources: list[tuple[str, str]]
) -> None:
    """Report the distance and the classes of samples; ``sources`` are kinds with "prior" or a length of chains."""

    def column(kind: str, source: str, what: str) -> list[float]:
        return [facts[source][what] for facts in found[kind]]

    floor = judge.samples(judge.rows[-judge.count :])  # none of the images that the neighbors are from
    (_, short), (_, long) = sources[-2:]
    experiment.report(
        f"samples of CyGen are nearer to images of {name} than samples from the prior of a VAE, and than chains of a DAE, of the same networks",
        paper="better samples than those of a VAE, by its abstract",
        ours="squared kernel distance "
        + ", ".join(f"{_label(*source)} {spread(column(*source, 'distance'), 4)}" for source in sources),
        confirmed=all_hold(
            clearly_below(column("CyGen (PT)", short, "distance"), column(*other, "distance"))
            for other in (("VAE", "prior"), ("DAE", short))
        ),
        seeds=len(found["VAE"]),
        note=f"to test images in 30 whitened principal components, not FID, where as many training images have {floor['distance']:z.4f}; chains from "
        f"noise, the VAE also from its prior, and decoder means; {_steps(experiment):,} steps of 128 each, a third of them cyclic with "
        "pretraining",
    )
    experiment.report(
        f"(not the paper's) chains ten times as long keep the classes of {name}",
        ours="total variation of the fractions of classes from those of test images: "
        + ", ".join(f"{_label(*source)} {spread(column(*source, 'classes'), 2)}" for source in sources),
        confirmed=max(column("CyGen (PT)", long, "classes")) < 0.1,
        seeds=len(found["VAE"]),
        note=f"classes by 10 neighbors of {judge.few:,} training images in the same components; as many other training images have "
        f"{floor['classes']:.2f}; criterion: below 0.1 in every run",
    )


def _report_codes(experiment: Experiment, judge: Judge, name: str, found: Found) -> None:
    right = {kind: [facts["right"] for facts in runs] for kind, runs in found.items()}
    experiment.report(
        f"codes of {name} are classified better from CyGen than from a VAE, all labels known",
        paper="better codes than those of a VAE, by its abstract" if name == "mnist" else "",
        ours=", ".join(f"{kind} {spread([100 * v for v in values], 1)} %" for kind, values in right.items()),
        confirmed=clearly_below(right["VAE"], right["CyGen (PT)"]),
        seeds=len(right["VAE"]),
        note=f"10 nearest neighbors in 10-dimensional code means, {len(judge.rows):,} labeled images, all {len(judge.test):,} test images",
    )


def _report_other_codes(experiment: Experiment, judge: Judge, name: str) -> None:
    """Whether another classifier, or codes that are drawn as in the paper's own code, change the result."""

    @torch.no_grad()
    def measure(kind: str, seed: int) -> dict[str, float]:
        return judge.other_codes(_model(experiment, kind, judge.rows, name, seed), seed)

    found = {
        kind: [
            experiment.measure(f"{name} {kind} {seed} codes in other ways", partial(measure, kind, seed))
            for seed in experiment.repeats
        ]
        for kind in KINDS
    }
    for way in found["VAE"][0]:
        right = {kind: [each[way] for each in runs] for kind, runs in found.items()}
        experiment.report(
            f"codes of {name} are classified better from CyGen than from a VAE by {way}",
            paper="better codes than those of a VAE, by its abstract" if name == "mnist" else "",
            ours=", ".join(f"{kind} {spread([100 * v for v in values], 1)} %" for kind, values in right.items()),
            confirmed=clearly_below(right["VAE"], right["CyGen (PT)"]),
            seeds=len(right["VAE"]),
            note=f"the same models as above; {len(judge.rows):,} labeled images, all {len(judge.test):,} test images",
        )
