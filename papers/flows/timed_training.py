"""Training of image models on a clock: each gets the same seconds of CPU time, batches, noise and optimizer.

The clock runs in training steps only. A killed run goes on from its checkpoint, and so does the clock.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from papers.experiment import bits_per_dim, size
from pushforward import io
from pushforward.errors import StorageError
from pushforward.kernels import freed_memory_kept
from pushforward.models import Model
from pushforward.training.optim import pack_optimizer, unpack_optimizer
from pushforward.training.seeds import Purpose, generator, mix, preserved, seed_loading

__all__ = ["Contender", "Limit", "Pictures", "held_out_bits", "possible", "train_for"]

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


def held_out_bits(model: Model, rows: Tensor) -> float:
    """Bits/dim of images from one draw of the dequantization."""
    return bits_per_dim(model, rows, batch=100)


def possible(bits: float | None) -> bool:
    """Whether a mean of bits/dim is a finite and positive number: no probability of an image is above 1.

    The estimate of a residual flow whose blocks are no contractions can be anything, and then does not count.
    """
    return bits is not None and math.isfinite(bits) and bits > 0


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


@dataclass
class _State:
    """What changes in a training, and is in its checkpoint beside the weights and the optimizer."""

    seconds: float = 0.0
    steps: int = 0
    phase: int = -1
    phase_began: float = 0.0
    evaluated: int = 0
    curve: list[list[float | None]] = field(default_factory=list)


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
        ``model``; ``parameters``, ``steps`` and CPU ``seconds``; ``curve``, pairs of CPU seconds and bits/dim of held-out images, with
        None for an infinite number or NaN, which a peer can give on the way. If the loss became infinite, or the bits/dim are not possible, ``model`` is None.
    """
    with preserved(torch.device("cpu")), freed_memory_kept():
        seed_loading(seed)
        training = _Training(contender, images, limit, rate, seed, checkpoint, fractions)
        finite = training.run()
        model, state = training.model, training.state
        facts = {"parameters": size(model), "steps": state.steps, "seconds": round(state.seconds, 1)}
        if finite:
            training.evaluate(1.0)
            finite = possible(state.curve[-1][1])
        model.eval()
    return {**facts, "curve": state.curve, "model": model if finite else None}


class _Training:
    """One training of :func:`train_for`, which has the arguments."""

    def __init__(
        self, contender: Contender, images: Pictures, limit: Limit, rate: float, seed: int, checkpoint: Path,
        fractions: Sequence[float],
    ) -> None:  # fmt: skip
        self.contender, self.images, self.limit = contender, images, limit
        self.rate, self.seed, self.checkpoint, self.fractions = rate, seed, checkpoint, fractions
        self.model = contender.make()
        self.start = images.train[torch.randperm(len(images.train), generator=generator(seed))[:START]]
        self.ends = [end for _, end in contender.phases] or [1.0]
        self.state = _State()
        if checkpoint.exists():
            self._resume()
        else:
            self._enter(0)

    @property
    def settings(self) -> dict[str, Any]:
        """What a checkpoint must have been written with."""
        images, seconds = self.images, self.limit.seconds
        return {
            "name": self.contender.name, "rate": self.rate, "seed": self.seed,
            "images": [images.name, len(images.train), images.batch_size], "seconds": seconds if seconds < math.inf else None,
        }  # fmt: skip

    def _enter(self, phase: int) -> None:
        """Begin a phase, with an optimizer of its own."""
        self.state.phase, self.state.phase_began = phase, self.limit.used(self.state.seconds, self.state.steps)
        if self.contender.phases:
            self.model.set_phase(self.contender.phases[phase][0])  # pyright: ignore[reportCallIssue]
        self.model.initialize(self.start, generator=generator(self.seed, Purpose.INITIALIZE))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=self.rate)

    def _resume(self) -> None:
        """Read the checkpoint."""
        header, tensors = io.read(self.checkpoint, "checkpoint")
        if header.get("settings") != self.settings:
            raise StorageError(f"{self.checkpoint} belongs to another run: delete it to start again.")
        self._enter(header["state"]["phase"])  # before the weights, which it may reset
        self.state = _State(**header["state"])
        self.model.load_state_dict({key[6:]: value for key, value in tensors.items() if key.startswith("model.")})
        packed = {key[10:]: value for key, value in tensors.items() if key.startswith("optimizer.")}
        unpack_optimizer(self.optimizer, header["optimizer"], packed)

    def run(self) -> bool:
        """Train until the time is used; False if the loss became infinite."""
        saved, draw = time.monotonic(), torch.Generator()
        state = self.state
        while (used := self.limit.used(state.seconds, state.steps)) < 1.0:
            if used >= self.ends[state.phase]:
                self._enter(state.phase + 1)
            if state.evaluated < len(self.fractions) and used >= self.fractions[state.evaluated]:
                self.evaluate(used)
            if time.monotonic() - saved > SAVED:
                _save(self.checkpoint, self.settings, state, self.model, self.optimizer)
                saved = time.monotonic()
            self.model.train()
            began = time.process_time()
            rate = self.rate * _cosine(used, state, self.ends)
            finite = _step(self.model, self.optimizer, self.images, state, draw, self.seed, rate)
            state.seconds += time.process_time() - began
            state.steps += 1
            if not finite:
                return False
        return True

    def evaluate(self, used: float) -> None:
        """Add a point to the curve."""
        while self.state.evaluated < len(self.fractions) and self.fractions[self.state.evaluated] <= used:
            self.state.evaluated += 1
        self.model.eval()
        seed_loading(mix(self.seed, Purpose.HELD_OUT))  # the noise of a peer
        watched = self.images.held_out[: self.contender.watched]
        bits = self.contender.bits(self.model, watched)
        self.state.curve.append([round(self.state.seconds, 2), bits if math.isfinite(bits) else None])  # for JSON


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
