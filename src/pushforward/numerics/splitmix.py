"""SplitMix64, the hash behind all derived seeds and noise (Steele, Lea, Flood 2014)."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from torch import Tensor

__all__ = ["GOLDEN", "WORD", "hash_integer", "mix", "mix_tensor", "signed"]

T = TypeVar("T", int, np.ndarray)

WORD = (1 << 64) - 1
"""The largest 64-bit word."""
GOLDEN = 0x9E3779B97F4A7C15
"""The step of the generator's counter: 2^64 divided by the golden ratio."""
_MULTIPLIERS = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def signed(value: int) -> int:
    """The signed 64-bit integer with the same bits as ``value`` modulo 2^64, as torch stores it."""
    value &= WORD
    return value - (1 << 64) if value >= 1 << 63 else value


_SIGNED = signed(_MULTIPLIERS[0]), signed(_MULTIPLIERS[1])


def mix(x: T) -> T:
    """The output function of SplitMix64, for Python integers below 2^64 and for arrays of ``uint64``."""
    x = ((x ^ (x >> 30)) * _MULTIPLIERS[0]) & WORD  # pyright: ignore[reportAssignmentType]
    x = ((x ^ (x >> 27)) * _MULTIPLIERS[1]) & WORD  # pyright: ignore[reportAssignmentType]
    return x ^ (x >> 31)  # pyright: ignore[reportReturnType]


def hash_integer(value: int) -> int:
    """A hash of a Python integer: output number ``value`` of the SplitMix64 generator with seed 0."""
    return mix((value * GOLDEN + GOLDEN) & WORD)


def mix_tensor(x: Tensor) -> Tensor:
    """:func:`mix` of a tensor of ``int64``, bit by bit the same."""
    x = (x ^ _shift(x, 30)) * _SIGNED[0]
    x = (x ^ _shift(x, 27)) * _SIGNED[1]
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift of signed 64-bit integers."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
