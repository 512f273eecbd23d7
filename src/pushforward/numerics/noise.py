"""Random numbers from a generator, or from the content of each row."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pushforward.numerics.checks import check_integer
from pushforward.numerics.splitmix import GOLDEN, hash_integer, mix_tensor, signed

_STEP = signed(GOLDEN)

__all__ = ["MiddleNoise", "Noise", "RowNoise", "draw_category", "normal_like", "uniform_like"]


class RowNoise:
    """Noise that is a function of the row, so that a row's score does not depend on its neighbors.

    Scoring uses it in place of a ``torch.Generator``: equal rows get equal noise in any batch and order, and different rows
    get independent noise. The function is SplitMix64 of the row's bits.

    Args:
        seed: of the noise.
        draw: index of the draw; the draws of one seed are independent of each other.

    Example:
        >>> import torch
        >>> from pushforward.numerics import RowNoise, uniform_like
        >>> x = torch.tensor([[1.0], [2.0], [1.0]])
        >>> noise = uniform_like(x, 1, RowNoise(seed=0))
        >>> (noise[0] == noise[2]).item(), (noise[0] == noise[1]).item()  # equal rows get equal noise
        (True, False)
    """

    def __init__(self, seed: int = 0, draw: int = 0) -> None:
        self.seed = seed if type(seed) is int else check_integer("seed", seed, None)
        self.draw = draw

    def uniform(self, x: Tensor, event_dims: int, shape: tuple[int, ...] | None = None) -> Tensor:
        """Uniform noise in [0, 1) in the type of ``x``, a function of each row's content.

        Args:
            x: ``(*rows, *event)``.
            event_dims: number of dimensions of the event.
            shape: of each row's noise; None for the shape of the event.
        """
        rows, event = x.shape[: x.dim() - event_dims], x.shape[x.dim() - event_dims :]
        count, shape = math.prod(event), tuple(event) if shape is None else shape
        values = x.detach().reshape(*rows, count).double() + 0.0  # -0.0 becomes 0.0
        bits = values.contiguous().view(torch.int64)
        position = torch.arange(1, count + 1, device=x.device, dtype=torch.int64)
        start = signed(GOLDEN * (2 * self.seed + 1) + 0xD1B54A32D192ED03 * self.draw)
        key = mix_tensor(mix_tensor(bits + position * _STEP).sum(-1, keepdim=True) + start)
        position = torch.arange(1, math.prod(shape) + 1, device=x.device, dtype=torch.int64)
        hashed = mix_tensor(key + position * _STEP)
        # As many high bits as the mantissa of the type has (53, or 24 in float32), so that no number rounds to 1.0.
        keep = 1 - round(math.log2(torch.finfo(x.dtype).eps))
        unit = ((hashed >> (64 - keep)) & ((1 << keep) - 1)).to(x.dtype) * 2.0**-keep
        return unit.reshape(*rows, *shape)

    def common(self, count: int, salt: int) -> list[float]:
        """Uniform numbers in [0, 1) that all rows share: they depend on the seed, the draw and the salt alone."""
        return [(hash_integer(self._key(salt) + k) >> 11) * 2.0**-53 for k in range(count)]

    def common_signs(self, count: int, salt: int, like: Tensor) -> Tensor:
        """+1 where :meth:`common` is below a half and -1 elsewhere, computed on the device of ``like`` in its type."""
        position = torch.arange(1, count + 1, dtype=torch.int64, device=like.device)
        high = mix_tensor((position + signed(self._key(salt))) * _STEP) < 0  # the highest bit
        return (1 - 2 * high.to(torch.int64)).to(like.dtype)

    def _key(self, salt: int) -> int:
        return hash_integer(hash_integer(2 * self.seed + 1) + hash_integer(self.draw) * 3 + hash_integer(salt) * 5)


class MiddleNoise(RowNoise):
    """Uniform noise of a half for every row: the middle of each cell, for runtimes that cannot hash a row.

    Example:
        >>> import torch
        >>> from pushforward.numerics import MiddleNoise, uniform_like
        >>> uniform_like(torch.zeros(2, 1), 1, MiddleNoise())
        tensor([[0.5000],
                [0.5000]])
    """

    def uniform(self, x: Tensor, event_dims: int, shape: tuple[int, ...] | None = None) -> Tensor:
        """A half in the type of ``x``; the arguments are those of :meth:`RowNoise.uniform`."""
        return x.new_full(x.shape if shape is None else (*x.shape[: x.dim() - event_dims], *shape), 0.5)


Noise = torch.Generator | RowNoise | None
"""Source of random numbers: a generator (training, sampling) or the rows themselves (scoring; None is seed 0)."""


def uniform_like(x: Tensor, event_dims: int, noise: Noise, shape: tuple[int, ...] | None = None) -> Tensor:
    """Uniform noise in [0, 1) from a generator or from the rows' content; shaped as ``x``, or ``shape`` for each row.

    Example:
        >>> import torch
        >>> from pushforward.numerics import uniform_like
        >>> u = uniform_like(torch.zeros(2, 3), 1, torch.Generator().manual_seed(0))
        >>> u.shape, bool((u >= 0).all() and (u < 1).all())
        (torch.Size([2, 3]), True)
    """
    if isinstance(noise, torch.Generator):
        size = x.shape if shape is None else (*x.shape[: x.dim() - event_dims], *shape)
        return torch.rand(size, dtype=x.dtype, device=x.device, generator=noise)
    return (noise or RowNoise()).uniform(x, event_dims, shape)


def normal_like(x: Tensor, event_dims: int, noise: Noise, shape: tuple[int, ...] | None = None) -> Tensor:
    """Standard normal noise from a generator or from the rows' content; shaped as ``x``, or ``shape`` for each row.

    Example:
        >>> import torch
        >>> from pushforward.numerics import normal_like
        >>> normal_like(torch.zeros(2, 3), 1, torch.Generator().manual_seed(0)).shape
        torch.Size([2, 3])
    """
    if isinstance(noise, torch.Generator):
        size = x.shape if shape is None else (*x.shape[: x.dim() - event_dims], *shape)
        return torch.randn(size, dtype=x.dtype, device=x.device, generator=noise)
    if x.dtype.itemsize < 4:  # ndtri takes no half precision
        return normal_like(x.float(), event_dims, noise, shape).to(x.dtype)
    unit = uniform_like(x, event_dims, noise, shape)
    half_step = torch.finfo(x.dtype).eps / 4
    # Computed from the nearer end: near 1, adding half a step would round to 1 and give infinite noise.
    low = unit < 0.5
    tail = torch.special.ndtri(torch.where(low, unit, 1 - unit) + torch.where(low, half_step, -half_step).to(x.dtype))
    return torch.where(low, tail, -tail)


def draw_category(logits: Tensor, generator: torch.Generator | None) -> Tensor:
    """An index drawn with the probabilities softmax(logits) of the last dimension, which the result lacks.

    Example:
        >>> import torch
        >>> from pushforward.numerics import draw_category
        >>> draw_category(torch.tensor([[0.0, 50.0, 0.0]]), torch.Generator().manual_seed(0))
        tensor([1])
    """
    # Of exponential times with the rates w_k, time k is the smallest with probability w_k / sum(w).
    times = torch.empty_like(logits, memory_format=torch.contiguous_format).exponential_(generator=generator)
    return (logits - times.log()).argmax(-1)
