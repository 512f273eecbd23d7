"""Bits/dim of images against CPU time: the same training for flows of this library and of others, its curves and findings.

Every model gets the same seconds of CPU time, batches, noise and optimizer. The clock runs in training steps only. A killed run
goes on from its checkpoint, and so does the clock.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from papers.equal_time import best_rate
from papers.experiment import Experiment, all_hold, bits_per_dim, clearly_below, principal, size, spread
from papers.image_peers import installed
from pushforward import io
from pushforward.errors import StorageError
from pushforward.kernels import freed_memory_kept
from pushforward.models import Model
from pushforward.models.latent.autoencoder import mmd
from pushforward.training.optim import pack_optimizer, unpack_optimizer
from pushforward.training.seeds import Purpose, generator, mix, preserved, seed_loading

__all__ = [
    "Contender",
    "Found",
    "Limit",
    "Pictures",
    "draw",
    "pictures",
    "report_ahead",
    "report_peers",
    "run_contenders",
    "train_for",
]

RATES = (1e-3, 3e-3, 1e-2)
"""Learning rates, among which held-out images choose for each model after a tenth of the time, with seed 0."""
CLIP = 5.0
START = 512
"""Training images that set data-dependent state."""
FRACTIONS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, *(k / 20 for k in range(2, 20)))
"""Fractions of the time at which held-out images are scored, and once more at the end."""
SAVED = 120.0
"""Seconds between two checkpoints."""


@dataclass(frozen=True)
class Pictures:
    """Images of a comparison, uint8 ``(n, channels, height, width)``.

    Attributes:
        name: of the set.
        train: training images.
        held_out: images from the training file, for the curves and the learning rates.
        test: test images, which are scored once, after training.
        batch_size: images of a step.
    """

    name: str
    train: Tensor
    held_out: Tensor
    test: Tensor
    batch_size: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of an image."""
        return tuple(self.test.shape[1:])


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


def held_out_bits(model: Model, rows: Tensor) -> float:
    """Bits/dim of images from one draw of the dequantization."""
    return bits_per_dim(model, rows, batch=100)


def possible(bits: float) -> bool:
    """Whether a mean of bits/dim is finite and positive: no probability of an image is above 1.

    The estimate of a residual flow whose blocks are no contractions can be anything, and then does not count.
    """
    return math.isfinite(bits) and bits > 0


@dataclass(frozen=True)
class Contender:
    """One model of a comparison.

    Attributes:
        name: of the model, in texts and pictures. Models with equal names are the same in all papers, so they are trained once.
        make: function that makes it.
        library: package that it needs besides this one, or "".
        phases: what ``Model.set_phase`` gets and until which fraction of the time; () for models without phases.
        bits: function from the model and images to bits/dim.
        judge: function from the trained model and the images to further figures.
        watched: number of held-out images that the curve scores; None for all.
    """

    name: str
    make: Callable[[], Model]
    library: str = ""
    phases: tuple[tuple[str, float], ...] = ()
    bits: Callable[[Model, Tensor], float] = held_out_bits
    judge: Callable[[Model, Pictures], dict[str, float]] = lambda model, images: {}
    watched: int | None = None


@dataclass(frozen=True)
class Limit:
    """How long a training takes: CPU seconds, or in a smoke run steps."""

    seconds: float = math.inf
    steps: float = math.inf

    def used(self, seconds: float, steps: int) -> float:
        """The used fraction, from 0 to 1."""
        return min(1.0, max(seconds / self.seconds, steps / self.steps))

    def part(self, fraction: float) -> Limit:
        """A fraction of it."""
        return Limit(fraction * self.seconds, math.ceil(fraction * self.steps) if self.steps < math.inf else math.inf)


def limit_of(experiment: Experiment) -> Limit:
    """35 minutes for each model in a long run, a day in a full one."""
    return experiment.choose(smoke=Limit(steps=4), quick=Limit(60), long=Limit(35 * 60), full=Limit(24 * 3600))


@dataclass
class _State:
    """What changes in a training, and is in its checkpoint beside the weights and the optimizer."""

    seconds: float = 0.0
    steps: int = 0
    phase: int = -1
    phase_began: float = 0.0
    evaluated: int = 0
    curve: list[list[float]] = field(default_factory=list)


def train_for(
    contender: Contender, images: Pictures, limit: Limit, *, rate: float, seed: int, checkpoint: Path,
    fractions: Sequence[float] = FRACTIONS,
) -> dict[str, Any]:  # fmt: skip
    """Train a model for some CPU time, from its checkpoint if there is one.

    Adam with a learning rate that falls as a cosine of the used time (in each phase), gradients of norm 5 at most, uniform
    dequantization; held-out images do not stop it and do not choose weights.

    Args:
        contender: the model.
        images: the images.
        limit: when to stop. Scoring held-out images and writing checkpoints take none of the time.
        rate: learning rate at the start.
        seed: of the initial weights, the batches and the noise.
        checkpoint: file that is written every two minutes.
        fractions: of the time, at which held-out images are scored.

    Returns:
        ``model``; ``parameters``, ``steps`` and CPU ``seconds``; ``curve``, pairs of CPU seconds and bits/dim of held-out images. If
        the loss became infinite, or the bits/dim are not possible, ``model`` is None.
    """
    settings = {"name": contender.name, "rate": rate, "seed": seed, "images": [images.name, len(images.train), images.batch_size],
                "seconds": limit.seconds if limit.seconds < math.inf else None}  # fmt: skip
    watched = images.held_out[: contender.watched]
    with preserved(torch.device("cpu")), freed_memory_kept():
        seed_loading(seed)
        model = contender.make()
        start = images.train[torch.randperm(len(images.train), generator=generator(seed))[:START]]
        state, draw = _State(), torch.Generator()

        def enter(phase: int) -> torch.optim.Optimizer:
            state.phase, state.phase_began = phase, limit.used(state.seconds, state.steps)
            if contender.phases:
                model.set_phase(contender.phases[phase][0])  # pyright: ignore[reportCallIssue]
            model.initialize(start, generator=generator(seed, Purpose.INITIALIZE))
            return torch.optim.Adam(model.parameters(), lr=rate)

        def evaluate(used: float) -> None:
            while state.evaluated < len(fractions) and fractions[state.evaluated] <= used:
                state.evaluated += 1
            model.eval()
            seed_loading(mix(seed, Purpose.HELD_OUT))  # the noise of a peer
            state.curve.append([round(state.seconds, 2), contender.bits(model, watched)])

        ends = [end for _, end in contender.phases] or [1.0]
        if checkpoint.exists():
            header, tensors = io.read(checkpoint, "checkpoint")
            if header.get("settings") != settings:
                raise StorageError(f"{checkpoint} belongs to another run: delete it to start again.")
            optimizer = enter(header["state"]["phase"])  # before the weights, which it may reset
            state = _State(**header["state"])
            model.load_state_dict({key[6:]: value for key, value in tensors.items() if key.startswith("model.")})
            packed = {key[10:]: value for key, value in tensors.items() if key.startswith("optimizer.")}
            unpack_optimizer(optimizer, header["optimizer"], packed)
        else:
            optimizer = enter(0)
        saved = time.monotonic()
        finite = True
        while (used := limit.used(state.seconds, state.steps)) < 1.0:
            if used >= ends[state.phase]:
                optimizer = enter(state.phase + 1)
            if state.evaluated < len(fractions) and used >= fractions[state.evaluated]:
                evaluate(used)
            if time.monotonic() - saved > SAVED:
                _save(checkpoint, settings, state, model, optimizer)
                saved = time.monotonic()
            model.train()
            began = time.process_time()
            finite = _step(model, optimizer, images, state, draw, seed, rate * _cosine(used, state, ends))
            state.seconds += time.process_time() - began
            state.steps += 1
            if not finite:
                break
        facts = {"parameters": size(model), "steps": state.steps, "seconds": round(state.seconds, 1)}
        if finite:
            evaluate(1.0)
            finite = possible(state.curve[-1][1])
        model.eval()
    return {**facts, "curve": state.curve, "model": model if finite else None}


def _cosine(used: float, state: _State, ends: Sequence[float]) -> float:
    """The factor of the learning rate: from 1 to 0 in each phase."""
    inside = (used - state.phase_began) / max(ends[state.phase] - state.phase_began, 1e-9)
    return 0.5 * (1 + math.cos(math.pi * min(max(inside, 0.0), 1.0)))


def _step(model: Model, optimizer: torch.optim.Optimizer, images: Pictures, state: _State, draw: torch.Generator, seed: int,
          rate: float) -> bool:  # fmt: skip
    """One step of Adam; False if the loss is not finite."""
    count = images.batch_size
    each = len(images.train) // count
    epoch, place = divmod(state.steps, each)
    order = torch.randperm(len(images.train), generator=generator(seed, Purpose.SHUFFLE, epoch))
    batch = images.train[order[place * count : (place + 1) * count]].float()
    seed_loading(mix(seed, Purpose.STEP, state.steps))  # dropout, and the noise of a peer
    draw.manual_seed(mix(seed, Purpose.LOSS, state.steps))
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    loss = model.loss(batch, generator=draw)
    if not torch.isfinite(loss):
        return False
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    optimizer.step()
    return True


def _save(path: Path, settings: dict[str, Any], state: _State, model: Model, optimizer: torch.optim.Optimizer) -> None:
    values, tensors = pack_optimizer(optimizer)
    flat = {f"optimizer.{key}": value for key, value in tensors.items()}
    flat |= {f"model.{key}": value for key, value in model.state_dict().items()}
    io.write(path, {"kind": "checkpoint", "settings": settings, "state": vars(state), "optimizer": values}, flat)


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
            f"{name} {runs[0]['parameters']:,} parameters, {statistics.fmean(run['steps'] for run in runs):,.0f} steps, rate {runs[0]['rate']:g}"
            for name, runs in self.runs.items()
        )
        seconds = self.limit.seconds
        budget = f"{seconds / 60:g} minutes of CPU time" if seconds < math.inf else f"{self.limit.steps:g} steps"
        return (
            f"{len(self.images.train):,} training images, {budget} for each model and seed, batches of {self.images.batch_size}, Adam, rates chosen by "
            f"held-out images after a tenth of the time; clear: by two standard errors over paired seeds; {each}"
        )


def run_contenders(experiment: Experiment, contenders: Sequence[Contender]) -> Found:
    """Train and score all models, with the seeds of the experiment.

    The results are kept under the name "images-against-time", so that papers share the models that they have in common.
    """
    shared = Experiment(
        "images-against-time", experiment.budget, experiment.out, experiment.data, experiment.seeds, experiment.say,
        experiment.costs,
    )  # fmt: skip
    images, limit = pictures(experiment), limit_of(experiment)
    runs: dict[str, list[dict[str, Any]]] = {}
    missing: dict[str, str] = {}
    for contender in contenders:
        seeds = {seed: f"{contender.name} seed {seed}" for seed in experiment.few(1, 3)}
        if contender.library and not installed(contender.library) and not all(map(shared.measured, seeds.values())):
            missing[contender.name] = contender.library
            continue
        rate = best_rate(_rates(experiment), partial(_pilot, shared, contender, images, limit.part(0.1)))
        runs[contender.name] = [
            shared.measure(key, partial(_measure, shared, contender, images, limit, seed, rate))
            for seed, key in seeds.items()
        ]
        for key in seeds.values():  # after the line of the measurement: a run that is killed before it resumes
            shared.forget(key)
    return Found(runs, missing, limit, images)


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
    shared: Experiment, contender: Contender, images: Pictures, limit: Limit, seed: int, rate: float
) -> dict[str, Any]:
    file = shared.checkpoint_file(f"{contender.name} seed {seed}")
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


def draw(experiment: Experiment, found: Found, name: str = "against-time") -> None:
    """The picture of a comparison: bits/dim of held-out images against CPU seconds, one line for each model and seed."""
    from pushforward.plot import COLORS

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
            late += [y for x, y in points if x >= 0.02 * points[-1][0]]
    if late:
        axes.set_ylim(min(late) - 0.05, max(late) + 0.05)
    axes.set_xscale("log")
    axes.set(xlabel="CPU seconds of training", ylabel=f"bits/dim of held-out images, {found.images.name}")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, title="dashed: other libraries", title_fontsize=7)
    experiment.picture(name, figure)
