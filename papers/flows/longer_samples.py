"""Samples, latent paths and moved attributes of image flows after trainings of several lengths, judged by a classifier's features."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from benchmarks.common.datasets import load_labels
from papers.distances import frechet
from papers.experiment import Experiment, Trained, all_hold, bits_per_dim, clearly_below, size, spread
from papers.flows.equal_time import best_rate
from papers.other_data.classifier_attacks import train_classifier
from pushforward.models import Model
from pushforward.models.manipulation import attribute_direction, interpolate, manipulate, sample_at_temperature
from pushforward.report.text import plural

__all__ = ["Judge", "Labeled", "study_lengths"]

SHOWN = 12
"""Images of a row of a picture."""
TEMPERATURES = (1.0, 0.7)
_RATE = 1e-3
"""Learning rate whose measurements have keys without a rate."""


class Labeled(NamedTuple):
    """Images with their classes."""

    images: Tensor
    labels: Tensor

    def of(self, label: int) -> Tensor:
        """The images of a class."""
        return self.images[self.labels == label]

    def part(self, start: int, stop: int) -> Labeled:
        """Some of the rows."""
        return Labeled(self.images[start:stop], self.labels[start:stop])


class Judge:
    """Compares images with test images: by the distance of their moments in the features of a classifier, and by the classes that it gives.

    The first part of the test images is compared with, so all others, which are moved or stand for perfect samples, are different images.

    Args:
        train: what the classifier is trained on.
        test: at least four images for each one that is compared.
        steps: of the training of the classifier.
    """

    def __init__(self, train: Labeled, test: Labeled, steps: int) -> None:
        self.train, self.steps = train, steps
        self.count = len(test.images) // 4
        self.target, self.starts, self.ends, self.others = (
            test.part(k * self.count, (k + 1) * self.count) for k in range(4)
        )

    @cached_property
    def network(self) -> nn.Sequential:
        """The classifier."""
        return cast("nn.Sequential", train_classifier(*self.train, self.steps).network)

    def features(self, images: Tensor) -> Tensor:
        """What the last layer reads."""
        layers = self.network[:-1]
        with torch.no_grad():
            return torch.cat([layers(part.clamp(0, 255).float()) for part in images.split(500)])

    def distance(self, images: Tensor, target: Tensor | None = None) -> float:
        """Squared Fréchet distance to test images, by default to those of all classes."""
        return frechet(self.features(images), self.features(self.target.images if target is None else target))

    def fraction(self, images: Tensor, first: int, second: int) -> float:
        """The fraction of images that are more like the second class than like the first."""
        network = self.network
        with torch.no_grad():
            logits = network(images.clamp(0, 255).float())
        return (logits[:, second] > logits[:, first]).float().mean().item()

    def floor(self, pairs: Mapping[str, tuple[int, int]]) -> dict[str, float]:
        """The distances of what no flow made: other test images, blends of pixels, and classes before and after their pixels are moved."""
        blend = (self.starts.images.float() + self.ends.images.float()) / 2
        found = {"other images": self.distance(self.others.images), "blend": self.distance(blend.round())}
        for name, (without, having) in pairs.items():
            there, target = self.others.of(having), self.target.of(having)
            starts = self.starts.of(without).float()
            shift = self.train.of(having).float().mean(0) - self.train.of(without).float().mean(0)
            found |= {
                f"{name}, there": self.distance(there, target),
                f"{name}, before": self.distance(starts, target),
                f"{name}, pixels": self.distance((starts + shift).round().clamp(0, 255), target),
            }
            found[f"{name}, fraction before"] = self.fraction(self.starts.of(without), without, having)
        return found

    def figures(self, model: Model, pairs: Mapping[str, tuple[int, int]], seed: int) -> dict[str, float]:
        """Bits/dim of test images, and the distances of samples, of the middles of latent paths, and of moved images."""
        found = {"bits": bits_per_dim(model, self.target.images)}
        for temperature in TEMPERATURES:
            drawn = [
                sample_at_temperature(model, min(100, self.count - k), temperature, seed=1000 * seed + k)
                for k in range(0, self.count, 100)
            ]
            found[f"T = {temperature}"] = self.distance(torch.cat(drawn))
        both = zip(self.starts.images.split(100), self.ends.images.split(100), strict=True)
        found["path"] = self.distance(
            torch.cat([interpolate(model, *ends, steps=3, spherical=True)[1] for ends in both])
        )
        for name, (without, having) in pairs.items():
            moved = self.moved(model, (without, having), self.starts.of(without), (1.0,))[0]
            found[f"{name}, after"] = self.distance(moved, self.target.of(having))
            found[f"{name}, fraction after"] = self.fraction(moved, without, having)
        return found

    def moved(self, model: Model, pair: tuple[int, int], images: Tensor, amounts: tuple[float, ...]) -> Tensor:
        """Images of a class, moved along the difference of the latent means of training images of two classes."""
        rows = torch.cat([self.train.of(label)[:2500] for label in pair])
        labels = torch.arange(2).repeat_interleave(torch.tensor([len(self.train.of(label)[:2500]) for label in pair]))
        return manipulate(model, images, attribute_direction(model, rows, labels), amounts)


def study_lengths(
    experiment: Experiment,
    name: str,
    make: Callable[[], Model],
    pairs: Mapping[str, tuple[int, int]] | None = None,
    rates: Sequence[float] = (_RATE,),
    *,
    label: str = "",
    lengths: Sequence[int] | None = None,
) -> None:
    """Train a flow of Fashion-MNIST for several numbers of steps, report what its samples are like, and draw them.

    Args:
        experiment: the run.
        name: of the model.
        make: function that makes it.
        pairs: pairs of classes, without and with an attribute.
        rates: learning rates, among which held-out images choose after the shortest training, with seed 0.
        label: a word before the names of measurements and pictures, for a second flow of a paper.
        lengths: numbers of steps, from the smallest; None for those of the budget.
    """
    pairs = pairs or {}
    rows = experiment.choose(smoke=300, quick=20_000, full=None)
    train, test = (
        Labeled(
            experiment.images("fashion-mnist", train=part, rows=rows),
            load_labels("fashion-mnist", train=part, folder=experiment.data)[:rows],
        )
        for part in (True, False)
    )
    held_out = experiment.choose(smoke=50, quick=500, full=1000)
    lengths = lengths or experiment.choose(
        smoke=(2, 3), quick=(100, 400), long=(400, 2000, 10_000), full=(400, 4000, 40_000)
    )
    judge = Judge(train, test, experiment.choose(smoke=2, quick=1000, full=3000))
    floor = experiment.measure("distances of images that no flow made", lambda: judge.floor(pairs))
    found: dict[int, list[dict[str, float]]] = {}
    models: dict[int, Trained[Model]] = {}

    def key(length: int, seed: int, rate: float) -> str:
        return f"{label}{', ' if label else ''}samples after {length} steps, seed {seed}" + (
            f", rate {rate:g}" if rate != _RATE else ""
        )

    def fit(length: int, seed: int, rate: float) -> Trained[Model]:
        return experiment.trained(
            key(length, seed, rate), make, train.images[:-held_out], train.images[-held_out:], seed=seed, max_steps=length,
            batch_size=64, patience=None, evaluate_every=max(1, length // 10), learning_rate=rate,
        )  # fmt: skip

    def on_held_out(rate: float) -> float:
        trained = fit(lengths[0], 0, rate)
        return experiment.measure(
            f"{key(lengths[0], 0, rate)}, held out", lambda: -bits_per_dim(trained.model, train.images[-held_out:])
        )

    rate = best_rate(rates, on_held_out) if len(rates) > 1 else rates[0]
    seeds = experiment.in_time(
        experiment.few(1, 3),
        lambda seed: [f"{key(length, seed, rate)}{end}" for length in lengths for end in ("", ", figures")],
    )
    for length in lengths:
        for seed in seeds:
            trained = fit(length, seed, rate)
            if seed == 0:
                models[length] = trained
            found.setdefault(length, []).append(
                experiment.measure(
                    f"{key(length, seed, rate)}, figures",
                    lambda seed=seed, trained=trained: judge.figures(trained.model, pairs, seed),
                )
            )
    chosen = (
        f", of {', '.join(f'{each:g}' for each in rates)} by held-out images after {lengths[0]} steps{' (the largest tried)' if rate == max(rates) else ''}"
        if len(rates) > 1
        else ""
    )
    setting = f"{len(train.images) - held_out:,} training images of fashion-mnist, batches of 64, learning rate {rate:g}{chosen}, {size(make()):,} parameters"
    _report(experiment, name, found, floor, setting, judge.count)
    _report_paths(experiment, name, found, floor)
    for pair in pairs:
        _report_pair(experiment, pair, found, floor)
    pictures = f"{label}{'-' if label else ''}longer"
    _draw_lengths(experiment, pictures, found, floor["other images"])
    kept = [experiment.keeps_picture(f"{pictures}-{each}", models.values()) for each in ("samples", "paths")]
    if not all(kept):
        _draw(experiment, pictures, judge, models, pairs)


def _of(runs: list[dict[str, float]], what: str) -> list[float]:
    return [run[what] for run in runs]


def _report(
    experiment: Experiment, name: str, found: Mapping[int, list[dict[str, float]]], floor: Mapping[str, float], setting: str, count: int
) -> None:  # fmt: skip
    lengths = list(found)
    text = "; ".join(
        f"{length:,} steps {spread(_of(runs, 'T = 1.0'), 1)}, at T = 0.7 {spread(_of(runs, 'T = 0.7'), 1)}, {spread(_of(runs, 'bits'))} bits/dim"
        for length, runs in found.items()
    )
    figures: dict[str, Any] = {
        f"{length} steps": statistics.fmean(_of(runs, "T = 1.0")) for length, runs in found.items()
    }
    experiment.report(
        f"samples of {name} come nearer to test images, the longer it is trained",
        paper="pictures",
        ours=f"squared distance {text}; other test images {floor['other images']:.1f}",
        confirmed=all_hold(
            clearly_below(_of(found[long], "T = 1.0"), _of(found[short], "T = 1.0"))
            for short, long in pairwise(lengths)
        ),
        seeds=len(found[lengths[-1]]),
        note=f"Fréchet distance of {count:,} samples to as many test images in the 100 features of a classifier, not the FID, which has another network; "
        f"{setting}, {plural(len(found[lengths[-1]]), 'seed')}; nearer: by a one-sided paired t-test over seeds at 5 %",
        figures=figures | {"other images": floor["other images"]},
    )  # fmt: skip


def _report_paths(
    experiment: Experiment, name: str, found: Mapping[int, list[dict[str, float]]], floor: Mapping[str, float]
) -> None:
    runs = list(found.values())[-1]
    experiment.report(
        f"images halfway between two latents of {name} are nearer to test images than blends of pixels",
        paper="pictures",
        ours=f"squared distance {spread(_of(runs, 'path'), 1)} against {floor['blend']:.1f}",
        confirmed=clearly_below(_of(runs, "path"), [floor["blend"]] * len(runs)),
        seeds=len(runs),
        note=f"{_lengths(found, 'path')}; between pairs of test images of any class, on an arc of latents; distance as above",
    )


def _report_pair(
    experiment: Experiment, pair: str, found: Mapping[int, list[dict[str, float]]], floor: Mapping[str, float]
) -> None:
    runs = list(found.values())[-1]
    before, there, pixels = (floor[f"{pair}, {what}"] for what in ("before", "there", "pixels"))
    after = _of(runs, f"{pair}, after")
    experiment.report(
        f"{pair}: images whose latents are moved are nearer to images of the second class than those whose pixels are",
        paper="pictures only (CelebA-HQ)",
        ours=f"squared distance {spread(after, 1)} with latents and {pixels:.1f} with pixels, {before:.1f} before; other images of that class {there:.1f}",
        confirmed=clearly_below(after, [pixels] * len(runs)),
        seeds=len(runs),
        note=f"{_lengths(found, f'{pair}, after')}; along the difference of the means of training images, of their latents or of their pixels; the classifier gives the second class to "
        f"{floor[f'{pair}, fraction before']:.0%} of the images before, and to {spread([100 * value for value in _of(runs, f'{pair}, fraction after')], 0)} % after, with latents; "
        "distance as above, to test images of the second class",
    )


def _lengths(found: Mapping[int, list[dict[str, float]]], what: str) -> str:
    """The number of steps and seeds, and the figure after fewer steps."""
    *shorter, last = found
    return f"after {last:,} steps, {plural(len(found[last]), 'seed')}" + "".join(
        f"; after {steps:,} steps {spread(_of(found[steps], what), 1)}" for steps in shorter
    )


def _draw_lengths(
    experiment: Experiment, pictures: str, found: Mapping[int, list[dict[str, float]]], floor: float
) -> None:
    """The distance of samples and the bits/dim of test images against the number of steps."""
    figure = experiment.figure(9, 3.2)
    left, right = figure.subplots(1, 2)

    def line(axes: Any, what: str, label: str | None = None) -> None:
        values = [_of(runs, what) for runs in found.values()]
        spreads = [statistics.stdev(each) if len(each) > 1 else 0.0 for each in values]
        axes.errorbar(
            list(found), [statistics.fmean(each) for each in values], spreads, marker=".", capsize=3, label=label
        )

    for temperature in TEMPERATURES:
        line(left, f"T = {temperature}", f"samples, T = {temperature:g}")
    left.axhline(floor, color="0.5", linestyle="--", label="other test images")
    left.set(xscale="log", yscale="log", xlabel="steps", ylabel="squared distance to test images")
    left.legend(fontsize=7)
    line(right, "bits")
    right.set(xscale="log", xlabel="steps", ylabel="bits/dim of test images")
    experiment.picture(f"{pictures}-curves", figure)


def _draw(
    experiment: Experiment,
    pictures: str,
    judge: Judge,
    models: Mapping[int, Trained[Model]],
    pairs: Mapping[str, tuple[int, int]],
) -> None:
    """Samples of each length, and paths and moved images of the longest training."""
    strips = {"test images": judge.target.images[:SHOWN]}
    for temperature in TEMPERATURES:
        for length, trained in models.items():
            strips[f"{length:,} steps, T = {temperature:g}"] = sample_at_temperature(
                trained.model, SHOWN, temperature, seed=0
            )
    experiment.strip(f"{pictures}-samples", strips)
    model = list(models.values())[-1].model
    paths: dict[str, Tensor] = {}
    for k in range(2):
        start, end = judge.starts.images[k], judge.ends.images[k]
        part = torch.linspace(0, 1, SHOWN)[:, None, None, None]
        paths[f"latent path {k + 1}"] = interpolate(model, start, end, steps=SHOWN, spherical=True)
        paths[f"blend {k + 1}"] = torch.lerp(start.float(), end.float(), part)
    for name, pair in pairs.items():
        amounts = tuple(torch.linspace(-0.5, 1.5, SHOWN).tolist())
        moved = judge.moved(model, pair, judge.starts.of(pair[0])[:1], amounts)
        paths[name] = moved[:, 0]
    experiment.strip(f"{pictures}-paths", paths)
