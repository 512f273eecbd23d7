"""Training of the network of `TransformationScore` on normal images alone, and how much weight its score deserves."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pushforward.detection.metrics import auroc
from pushforward.detection.scores import TransformationScore
from pushforward.detection.scores.transformation import scaled, symmetry, symmetry_count
from pushforward.networks import ConvSummary
from pushforward.numerics import seeded
from pushforward.training.budget import Budget

__all__ = ["SHIFTS", "Noise", "fit_transformations", "information"]

_CHANNELS, _HIDDEN = (32, 64, 128), (64,)
_COPIES = 16
"""Images of each symmetry in a batch."""
_CHANGED = 10
"""Images of each kind of shift in a batch."""
_RATE, _DECAY, _WARM_UP = 2e-3, 1e-3, 0.1
_YARDSTICK = 1000
"""Largest number of held-out images that are transformed to see how well the score tells them apart."""

Shift = Callable[[Tensor, torch.Generator], Tensor]
Noise = Callable[[int, torch.Generator], Tensor]


def _two_parts(x: Tensor, generator: torch.Generator) -> Tensor:
    """Two images, joined along a random line."""
    angle, offset = 2 * math.pi * _uniform(x, generator), _uniform(x, generator) - 0.5
    down, across = (torch.linspace(-1, 1, side, dtype=x.dtype) for side in x.shape[2:])
    side = (across * angle.cos() + down[:, None] * angle.sin()) > 0.5 * offset
    return torch.where(side, x, _others(x, generator))


def _blocks(x: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the images with their quarters in a random order, the others moved by a quarter to three quarters of a side."""
    n, channels, height, width = x.shape
    half = n // 2
    quarters = x[:half].reshape(half, channels, 2, height // 2, 2, width // 2).permute(0, 2, 4, 1, 3, 5)
    quarters = quarters.reshape(half, 4, channels, height // 2, width // 2)
    order = torch.rand(half, 4, generator=generator, dtype=x.dtype).argsort(1)
    quarters = quarters[torch.arange(half)[:, None], order].reshape(half, 2, 2, channels, height // 2, width // 2)
    shuffled = quarters.permute(0, 3, 1, 4, 2, 5).reshape(half, channels, height, width)
    down, right = (_integer(side // 4, side - side // 4, generator) for side in (height, width))
    moves = ((0, right), (down, 0), (down, right))[_integer(0, 2, generator)]
    return torch.cat((shuffled, x[half:].roll(moves, (2, 3))))


def _mixture(x: Tensor, generator: torch.Generator) -> Tensor:
    """Means of two images, with a weight of 0.3 to 0.7."""
    part = 0.3 + 0.4 * _uniform(x, generator)
    return part * x + (1 - part) * _others(x, generator)


def _stretched(x: Tensor, generator: torch.Generator) -> Tensor:
    """Stretched and sheared: each side by a factor of 0.7 to 1.4."""
    across, down = (torch.exp(math.log(0.7) + math.log(2.0) * _uniform(x, generator)).flatten() for _ in range(2))
    shear, right, low = ((_uniform(x, generator) - 0.5).flatten() for _ in range(3))
    zero = torch.zeros_like(down)
    rows = (torch.stack((across, 0.8 * shear, 0.3 * right), 1), torch.stack((zero, down, 0.3 * low), 1))
    grid = F.affine_grid(torch.stack(rows, 1), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def _strokes(x: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the images dilated, the others eroded, by one pixel."""
    half = len(x) // 2
    return torch.cat((F.max_pool2d(x[:half], 3, 1, 1), -F.max_pool2d(-x[half:], 3, 1, 1)))


def _sharpness(x: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the images blurred, the others with noise."""
    half = len(x) // 2
    blurred = F.avg_pool2d(x[:half], 3, 1, 1, count_include_pad=False)
    scale = 0.05 + 0.3 * torch.randn(len(x) - half, 1, 1, 1, generator=generator, dtype=x.dtype).abs()
    noisy = x[half:] + scale * torch.randn(x[half:].shape, generator=generator, dtype=x.dtype)
    return torch.cat((blurred, noisy.clamp(-1.0, 1.0)))


SHIFTS: tuple[Shift, ...] = (_two_parts, _blocks, _mixture, _stretched, _strokes, _sharpness)
"""Changes of images ``(n, channels, height, width)`` of values in [-1, 1] after which they are no longer normal."""


def fit_transformations(
    images: Tensor,
    *,
    steps: int,
    seed: int = 0,
    seconds: float | None = None,
    shifts: Sequence[Shift] = SHIFTS,
    channels: tuple[int, int, int] = _CHANNELS,
    noise: Noise | None = None,
) -> TransformationScore:
    """Train a small convolutional network to say which transformation was applied to an image, and return its score.

    The classes are the symmetries of a square (of a rectangle: four), and six kinds of shifted instances: two images joined
    along a line, quarters in another order or a moved image, means of two images, stretched, thicker or thinner, blurred or
    noisy. A shifted instance has a random symmetry.

    Args:
        images: normal images, uint8, ``(n, channels, height, width)``, sides multiples of 4.
        steps: of training, each on 188 transformed images (124 that are not square).
        seed: of the weights, the choice of images and the shifts.
        seconds: limit of the training; None for none.
        shifts: functions of images of values in [-1, 1] and a generator, one for each kind of shifted instance; may be empty.
        channels: of the three convolutions.
        noise: draws what is added to the transformed images, in units of the pixels in [0, 1]; None for nothing. The network then
            recognizes transformations under this noise, as a smoothed score needs (Cohen et al. 2019, arXiv 1902.02918, sec. 3.3).

    Example:
        >>> import torch
        >>> x = torch.arange(64, dtype=torch.uint8).reshape(1, 1, 8, 8).repeat(40, 1, 1, 1)
        >>> score = fit_transformations(x, steps=20)
        >>> bool(score(x[:1].flip(2)) > score(x[:1]))
        True
    """
    generator = torch.Generator().manual_seed(seed)
    shape = tuple(images.shape[1:])
    count = symmetry_count(*shape[1:])
    with seeded(seed):
        network = ConvSummary(shape, count + len(shifts), channels, _HIDDEN)
    optimizer = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=_DECAY)
    classes = torch.cat(
        (
            torch.arange(count).repeat_interleave(_COPIES),
            torch.arange(count, count + len(shifts)).repeat_interleave(_CHANGED),
        )
    )
    budget, start, step = Budget(steps, seconds), time.monotonic(), 0
    while budget.stop_reason(step, time.monotonic() - start) is None:
        used = budget.used(step, time.monotonic() - start)
        for group in optimizer.param_groups:
            group["lr"] = _RATE * min((used + 1 / steps) / _WARM_UP, 0.5 * (1.0 + math.cos(math.pi * used)))
        drawn = scaled(images[torch.randint(len(images), (len(classes),), generator=generator)], torch.float32)
        batch = torch.cat((_turned(drawn, count), *_shifted(drawn[count * _COPIES :], shifts, generator)))
        if noise is not None:
            batch = (batch + 2.0 * noise(len(batch), generator)).clamp(-1.0, 1.0)
        loss = F.cross_entropy(network(batch.flatten(1)), classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
    for weight in network.parameters():
        weight.requires_grad_(False)
        weight.grad = None
    score = TransformationScore(network.eval())
    return score.eval()


def information(score: TransformationScore, held_out: Tensor, seed: int = 0, noise: Noise | None = None) -> float:
    """How well the score tells held-out images from their own transformations, from 0 (not at all) to 1.

    It is 2 A - 1, A the AUROC of the score between images and transformed images (a symmetry other than the identity, or a
    shifted instance, one kind each). Where the images look the same after the transformations, A is 1/2 and the score has
    nothing to say.

    Args:
        score: fitted on other images.
        held_out: images, uint8, ``(n, channels, height, width)``.
        seed: of the choice of images and of the shifts.
        noise: as of :func:`fit_transformations`; it is added to both.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = held_out[torch.randperm(len(held_out), generator=generator)[:_YARDSTICK]]
    kinds = torch.randint(1, score.count + len(SHIFTS), (len(chosen),), generator=generator)
    images, changed = scaled(chosen, torch.float32), []
    for kind in range(1, score.count + len(SHIFTS)):
        some = images[kinds == kind]
        if len(some):
            shifted = kind >= score.count
            changed.append(SHIFTS[kind - score.count](some, generator) if shifted else symmetry(some, kind))
    made, kept = ((torch.cat(changed) + 1.0) * 127.5).round(), chosen.float()
    if noise is not None:
        kept, made = (x + 255.0 * noise(len(x), generator) for x in (kept, made))
    return max(0.0, 2.0 * auroc(score(kept).numpy(), score(made).numpy()) - 1.0)


def _turned(x: Tensor, count: int) -> Tensor:
    """The first images of ``x``, as many with each symmetry."""
    return torch.cat([symmetry(x[_COPIES * k : _COPIES * (k + 1)], k) for k in range(count)])


def _shifted(x: Tensor, shifts: Sequence[Shift], generator: torch.Generator) -> list[Tensor]:
    """Shifted instances of ``x``, as many of each kind, each kind with one random symmetry."""
    count = symmetry_count(*x.shape[-2:])
    parts = [shift(x[_CHANGED * k : _CHANGED * (k + 1)], generator) for k, shift in enumerate(shifts)]
    return [symmetry(part, _integer(0, count - 1, generator)) for part in parts]


def _others(x: Tensor, generator: torch.Generator) -> Tensor:
    return x[torch.randperm(len(x), generator=generator)]


def _uniform(x: Tensor, generator: torch.Generator) -> Tensor:
    """A number from 0 to 1 for each image, in the type of the images."""
    return torch.rand(len(x), 1, 1, 1, generator=generator, dtype=x.dtype)


def _integer(low: int, high: int, generator: torch.Generator) -> int:
    """A random integer from ``low`` to ``high``, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))
