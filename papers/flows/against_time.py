"""Bits/dim of images against CPU time: flows of this library and of others after the same training, their curves and findings."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

import torch

from papers.distances import principal
from papers.experiment import Experiment, all_hold, clearly_below, spread
from papers.flows.equal_time import best_rate
from papers.flows.image_peers import installed
from papers.flows.timed_training import Contender, Limit, Pictures, possible, train_for
from papers.measurements import SHARED
from pushforward.models import Model
from pushforward.models.latent.autoencoder import mmd
from pushforward.plot import COLORS
from pushforward.training.seeds import preserved, seed_loading

__all__ = [
    "Found",
    "draw",
    "limit_of",
    "pictures",
    "report_ahead",
    "report_peers",
    "run_contenders",
    "sample_distance",
]

RATES = (1e-3, 3e-3, 1e-2)
"""Learning rates, among which held-out images choose for each model after a tenth of the time, with seed 0."""
BEYOND = 2
"""Further rates that are tried where the best is the smallest or the largest."""


def pictures(experiment: Experiment) -> Pictures:
    """CIFAR-10; for a smoke run some images of Fashion-MNIST, which are there without it."""
    name = experiment.choose(smoke="fashion-mnist", quick="cifar10", full="cifar10")
    train, held_out, test = experiment.image_parts(
        name,
        rows=experiment.choose(smoke=80, quick=10_000, full=50_000),
        held_out=experiment.choose(smoke=8, quick=500, full=1000),
        test=experiment.choose(smoke=8, quick=10_000, full=10_000),
    )
    return Pictures(name, train, held_out, test, experiment.choose(smoke=8, quick=32, full=64))


def sample_distance(model: Model, images: Pictures, count: int = 1000) -> dict[str, float]:
    """Squared kernel distance of samples to test images in 30 whitened principal components; not the FID."""
    features, count = principal(images.train), min(count, len(images.test))
    with torch.no_grad():
        drawn = torch.cat([model.sample(min(100, count - k), seed=k) for k in range(0, count, 100)])
    return {"distance": mmd(features(drawn.clamp(0, 255)), features(images.test[:count])).item()}


def limit_of(experiment: Experiment) -> Limit:
    """12 minutes for each model in a long run, a day in a full one."""
    return experiment.choose(smoke=Limit(steps=4), quick=Limit(60), long=Limit(12 * 60), full=Limit(24 * 3600))


@dataclass(frozen=True)
class Found:
    """The results of a comparison.

    Attributes:
        runs: for each model the figures of each seed; ``bits`` are those of the test images, None if the training diverged.
        missing: models whose library is not installed, with the library.
        limit: how long each training was.
        images: what they were trained on.
    """

    runs: Mapping[str, Sequence[Mapping[str, Any]]]
    missing: Mapping[str, str]
    limit: Limit
    images: Pictures

    def bits(self, name: str) -> list[float]:
        """Bits/dim of the test images by seed; infinite where the training diverged."""
        return self.figures(name, "bits")

    def figures(self, name: str, what: str) -> list[float]:
        """A figure by seed; infinite where the training diverged."""
        return [math.inf if run.get(what) is None else run[what] for run in self.runs[name]]

    def text(self, name: str, what: str = "bits", digits: int = 3) -> str:
        """Mean and spread of a figure, and how many trainings diverged."""
        values = self.figures(name, what)
        finite = [value for value in values if math.isfinite(value)]
        lost = f" ({len(values) - len(finite)} of {len(values)} diverged)" if len(finite) < len(values) else ""
        return (spread(finite, digits) if finite else "–") + lost

    def below(self, first: str, second: str, what: str = "bits", than: str | None = None) -> bool | None:
        """Whether a figure of the first model is clearly below that of the second, by ``clearly_below`` over paired seeds.

        ``than`` is the figure of the second model, by default the same one. A model whose training diverged is below none, and
        seeds of which only the second diverged do not count.
        """
        ours, theirs = self.figures(first, what), self.figures(second, than or what)
        if not all(map(math.isfinite, ours)):
            return False
        pairs = [(own, other) for own, other in zip(ours, theirs, strict=True) if math.isfinite(other)]
        return clearly_below(*zip(*pairs, strict=True)) if pairs else None

    def not_behind(self, first: str, second: str) -> bool | None:
        """Whether the second model is not clearly ahead of the first."""
        behind = self.below(second, first) if all(map(math.isfinite, self.bits(first))) else True
        return None if behind is None else not behind

    def compare(self, first: str, second: str, what: str = "bits", unit: str = "bits/dim") -> str:
        """In plain words which of two models is ahead, and by how much against the spread of the seeds."""
        ours, theirs = self.figures(first, what), self.figures(second, what)
        gains = [
            other - own for own, other in zip(ours, theirs, strict=True) if math.isfinite(own) and math.isfinite(other)
        ]
        if not gains:
            return f"{first} and {second} do not compare, because trainings diverged"
        gain = statistics.fmean(gains)
        leader, other = (first, second) if gain >= 0 else (second, first)
        by = f"{leader} is ahead of {other} by {abs(gain):.3f}"
        by += f" ± {statistics.stdev(gains):.3f} {unit}" if len(gains) > 1 else f" {unit} with one seed"
        if len(gains) > 1 and not self.below(leader, other, what):
            by += ", which is not clear"
        return by

    def conditions(self) -> str:
        """Text on the training, and on each model its size, steps and learning rate."""
        each = "; ".join(
            f"{name} {runs[0]['parameters']:,} parameters, {statistics.fmean(run['steps'] for run in runs):,.0f} steps{' in the mean' if len(runs) > 1 else ''}, rate {runs[0]['rate']:g}"
            for name, runs in self.runs.items()
        )
        seconds = self.limit.seconds
        budget = f"{seconds / 60:g} minutes of CPU time" if seconds < math.inf else f"{self.limit.steps:g} steps"
        return (
            f"{len(self.images.train):,} training images, {budget} for each model and seed, batches of {self.images.batch_size}, Adam, rates chosen by "
            f"held-out images after a tenth of the time; clear: by a one-sided paired t-test over seeds at 5 %; {each}"
        )


def run_contenders(experiment: Experiment, contenders: Sequence[Contender]) -> Found:
    """Train and score all models, with the seeds of the experiment.

    The results are kept under a name of their own, so that papers share the models that they have in common. When the time of the
    run is over, the seeds that all models have are returned.
    """
    shared = Experiment(
        SHARED, experiment.budget, experiment.out, experiment.data, experiment.seeds, experiment.say, experiment.costs, experiment.end,
    )  # fmt: skip
    images, limit = pictures(experiment), limit_of(experiment)
    few = experiment.few(1, 3)
    missing: dict[str, str] = {}
    chosen: dict[Contender, tuple[float, dict[int, str]]] = {}
    for contender in contenders:
        keys = {seed: f"{contender.name} seed {seed}" for seed in few}
        needed = experiment.in_time(few, lambda seed, keys=keys: [keys[seed]], shared)
        if contender.library and not installed(contender.library) and not all(shared.measured(keys[k]) for k in needed):
            missing[contender.name] = contender.library
            continue
        pilot = partial(_pilot, shared, contender, images, limit.part(0.1))
        rate = best_rate(_rates(experiment), pilot, beyond=0 if experiment.budget == "smoke" else BEYOND)
        chosen[contender] = rate, {seed: _key_at(shared, key, rate) for seed, key in keys.items()}
    seeds = experiment.in_time(few, lambda seed: [keys[seed] for _, keys in chosen.values()], shared)
    runs: dict[str, list[dict[str, Any]]] = {}
    for contender, (rate, keys) in chosen.items():
        runs[contender.name] = [
            shared.measure(keys[seed], partial(_measure, shared, contender, keys[seed], images, limit, seed, rate))
            for seed in seeds
        ]
        for seed in seeds:  # after the line of the measurement: a run that is killed before it resumes
            shared.forget(keys[seed])
    return Found(runs, missing, limit, images)


def _key_at(shared: Experiment, key: str, rate: float) -> str:
    """The name of a measurement at a rate; one with another rate, chosen from fewer, keeps the name without it."""
    other = shared.measured(key) and shared.measure(key, dict).get("rate", rate) != rate
    return f"{key}, rate {rate:g}" if other else key


def _rates(experiment: Experiment) -> tuple[float, ...]:
    return RATES[:1] if experiment.budget == "smoke" else RATES


def _pilot(shared: Experiment, contender: Contender, images: Pictures, limit: Limit, rate: float) -> float | None:
    """Minus bits/dim of held-out images; None if the training diverged or there is nothing to choose."""
    if shared.budget == "smoke":
        return None
    key = f"{contender.name} pilot {rate:g}"
    file = shared.checkpoint_file(key)

    def run() -> float | None:
        result = train_for(contender, images, limit, rate=rate, seed=0, checkpoint=file, fractions=())
        return None if result["model"] is None else result["curve"][-1][1]

    bits = shared.measure(key, run)
    shared.forget(key)
    return None if bits is None else -bits


def _measure(
    shared: Experiment, contender: Contender, key: str, images: Pictures, limit: Limit, seed: int, rate: float
) -> dict[str, Any]:
    file = shared.checkpoint_file(key)
    result = train_for(contender, images, limit, rate=rate, seed=seed, checkpoint=file)
    model = result.pop("model")
    result |= {"rate": rate, "bits": None, "library": contender.library}
    if contender.library:
        result["version"] = version(contender.library)
    if model is not None:
        with preserved(torch.device("cpu")):
            seed_loading(seed)
            bits = contender.bits(model, images.test)
            result["bits"] = bits if possible(bits) else None
            result |= contender.judge(model, images)
    return result


def report_ahead(
    experiment: Experiment,
    claim: str,
    found: Found,
    first: str,
    others: Sequence[str],
    *,
    level: bool = False,
    paper: str = "",
    note: str = "",
) -> None:
    """Report whether one model is clearly ahead of all others in bits/dim of the test images.

    With ``level`` the claim is that it is not clearly behind. One seed confirms nothing.
    """
    names = [first, *others]
    holds = [found.not_behind(first, other) if level else found.below(first, other) for other in others]
    experiment.report(
        claim,
        paper=paper,
        ours=f"{', '.join(f'{name} {found.text(name)}' for name in names)} bits/dim on {len(found.images.test):,} test images of "
        f"{found.images.name}: {'; '.join(found.compare(first, other) for other in others)}",
        confirmed=all_hold(holds),
        seeds=len(found.bits(first)),
        note="; ".join(part for part in (note, found.conditions()) if part),
    )


def report_peers(
    experiment: Experiment, claim: str, found: Found, first: str, peers: Sequence[str], *, note: str = ""
) -> None:
    """Report whether one model is not behind the same flow of other libraries; a library that is not installed is named."""
    there = [name for name in peers if name in found.runs]
    absent = [
        f"{found.missing[name]} is not installed, so {name} was not trained" for name in peers if name in found.missing
    ]
    said = [f"{', '.join(f'{name} {found.text(name)}' for name in [first, *there])} bits/dim"] if there else []
    said += [found.compare(first, name) for name in there]
    versions = {
        f"{run['library']} {run['version']}" for name in there for run in found.runs[name] if run.get("version")
    }
    experiment.report(
        claim,
        ours="; ".join([*said, *absent]),
        confirmed=all_hold(found.not_behind(first, name) for name in there) if there and not absent else None,
        seeds=len(found.bits(first)) if there else 0,
        note="; ".join(
            part
            for part in (
                "not a claim of the paper; equal pixel transforms, images, batches, noise, optimizer and CPU time",
                ", ".join(sorted(versions)),
                note,
            )
            if part
        ),
    )


def draw(experiment: Experiment, found: Found, name: str = "against-time", *, shown: float = 0.02) -> None:
    """The picture of a comparison: bits/dim of held-out images against CPU seconds, one line for each model and seed.

    The axis of bits/dim has what the models reach after the part ``shown`` of the time.
    """
    figure = experiment.figure(7, 4)
    axes = figure.subplots()
    late: list[float] = []
    for index, (model, runs) in enumerate(found.runs.items()):
        for k, run in enumerate(runs):
            foreign = bool(run.get("library"))
            points = [(x, y) for x, y in run["curve"] if x > 0 and possible(y)]
            if not points:
                continue
            axes.plot(
                *zip(*points, strict=True), color=COLORS[index % len(COLORS)], linestyle="--" if foreign else "-", linewidth=1.2,
                marker=".", markersize=3, label=model if k == 0 else None,
            )  # fmt: skip
            late += [y for x, y in points if x >= shown * points[-1][0]]
    if late:
        margin = max(0.05, 0.08 * (max(late) - min(late)))
        axes.set_ylim(min(late) - margin, max(late) + margin)
    axes.set_xscale("log")
    axes.set(xlabel="CPU seconds of training", ylabel=f"bits/dim of held-out images, {found.images.name}")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, title="dashed: other libraries", title_fontsize=7)
    experiment.picture(name, figure)
