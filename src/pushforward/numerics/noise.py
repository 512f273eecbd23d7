"""Noise from a generator or from the content of each row."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pushforward.numerics.splitmix import GOLDEN, hash_integer, mix_tensor, signed

_STEP = signed(GOLDEN)

__all__ = ["Noise", "RowNoise", "draw_category", "normal_like", "uniform_like"]


class RowNoise:
    """Noise that is a function of each row's own content, so a row's score does not depend on its neighbors.

    Scoring draws from it instead of from a ``torch.Generator``: equal rows get equal noise, in any batch and order,
    and different rows get unrelated noise. SplitMix64 over the bits of the row.

    Args:
        seed: chooses the noise.
        draw: index of the draw; draws of one seed are unrelated to each other.
    """

    def __init__(self, seed: int = 0, draw: int = 0) -> None:
        self.seed = seed
        self.draw = draw

    def uniform(self, x: Tensor, event_dims: int, shape: tuple[int, ...] | None = None) -> Tensor:
        """Uniform noise in [0, 1) in the type of ``x``; each of the leading rows is keyed by its content.

        Args:
            x: ``(*rows, *event)``.
            event_dims: dimensions of the event.
            shape: of each row's noise; None for the event's own.
        """
        rows, event = x.shape[: x.dim() - event_dims], x.shape[x.dim() - event_dims :]
        count, shape = math.prod(event), tuple(event) if shape is None else shape
        values = x.detach().reshape(*rows, count).double() + 0.0  # -0.0 becomes 0.0
        bits = values.contiguous().view(torch.int64)
        place = torch.arange(1, count + 1, device=x.device, dtype=torch.int64)
        start = signed(GOLDEN * (2 * self.seed + 1) + 0xD1B54A32D192ED03 * self.draw)
        key = mix_tensor(mix_tensor(bits + place * _STEP).sum(-1, keepdim=True) + start)
        place = torch.arange(1, math.prod(shape) + 1, device=x.device, dtype=torch.int64)
        hashed = mix_tensor(key + place * _STEP)
        # As many high bits as the type's mantissa holds (53, or 24 in float32), so that 1.0 cannot appear.
        keep = 1 - round(math.log2(torch.finfo(x.dtype).eps))
        unit = ((hashed >> (64 - keep)) & ((1 << keep) - 1)).to(x.dtype) * 2.0**-keep
        return unit.reshape(*rows, *shape)

    def common(self, count: int, salt: int) -> list[float]:
        """Uniform numbers in [0, 1) for all rows alike: they depend on the seed, the draw and the salt alone."""
        return [(hash_integer(self._key(salt) + k) >> 11) * 2.0**-53 for k in range(count)]

    def common_signs(self, count: int, salt: int, like: Tensor) -> Tensor:
        """+1 where :meth:`common` is below a half and -1 elsewhere, found on the device of ``like``, in its type."""
        place = torch.arange(1, count + 1, dtype=torch.int64, device=like.device)
        high = mix_tensor((place + signed(self._key(salt))) * _STEP) < 0  # the highest bit
        return (1 - 2 * high.to(torch.int64)).to(like.dtype)

    def _key(self, salt: int) -> int:
        return hash_integer(hash_integer(2 * self.seed + 1) + hash_integer(self.draw) * 3 + hash_integer(salt) * 5)


Noise = torch.Generator | RowNoise | None
"""Where randomness comes from: a generator (training, sampling) or the rows themselves (scoring; None is seed 0)."""


def uniform_like(x: Tensor, event_dims: int, noise: Noise, shape: tuple[int, ...] | None = None) -> Tensor:
    """Uniform noise in [0, 1) from a generator or from the rows' content; shaped as ``x``, or ``shape`` for each row."""
    if isinstance(noise, torch.Generator):
        size = x.shape if shape is None else (*x.shape[: x.dim() - event_dims], *shape)
        return torch.rand(size, dtype=x.dtype, device=x.device, generator=noise)
    return (noise or RowNoise()).uniform(x, event_dims, shape)


def normal_like(x: Tensor, event_dims: int, noise: Noise, shape: tuple[int, ...] | None = None) -> Tensor:
    """Standard normal noise from a generator or from the rows' content; shaped as ``x``, or ``shape`` for each row."""
    if isinstance(noise, torch.Generator):
        size = x.shape if shape is None else (*x.shape[: x.dim() - event_dims], *shape)
        return torch.randn(size, dtype=x.dtype, device=x.device, generator=noise)
    unit = uniform_like(x, event_dims, noise, shape)
    half_step = torch.finfo(x.dtype).eps / 4
    # From the nearer end: at the far end of [0, 1) half a step would round up to 1, and the noise be infinite.
    low = unit < 0.5
    tail = torch.special.ndtri(torch.where(low, unit, 1 - unit) + torch.where(low, half_step, -half_step).to(x.dtype))
    return torch.where(low, tail, -tail)


def draw_category(logits: Tensor, generator: torch.Generator | None) -> Tensor:
    """Index drawn with probability softmax(logits) along the last dimension, which it removes."""
    # Exponential race: the first of K clocks with rates w_k to ring is k with probability w_k.
    clocks = torch.empty_like(logits, memory_format=torch.contiguous_format).exponential_(generator=generator)
    return (logits - clocks.log()).argmax(-1)
