"""Checks of arguments: integers, numbers in an interval, names from a list. Each refuses in the same words everywhere."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable
from typing import Any, Literal

from pushforward.errors import ConfigError

__all__ = [
    "check_choice",
    "check_indices",
    "check_integer",
    "check_number",
    "check_positive",
    "check_seed",
    "check_widths",
    "is_integer",
]


def check_integer(
    name: str, value: Any, least: int | None = 1, *, most: int | None = None, optional: bool = False
) -> Any:
    """An integer of at least ``least`` and at most ``most``, as an ``int``; None passes where it is ``optional``.

    Raises:
        ConfigError: naming the argument.

    >>> check_integer("layers", 3)
    3
    """
    if optional and value is None:
        return None
    if not is_integer(value) or (least is not None and value < least) or (most is not None and value > most):
        limits = "" if least is None else f" of at least {least}" if most is None else f" from {least} to {most}"
        raise ConfigError(f"{name} must be an integer{limits}{_or_none(optional)}; got {value!r}.")
    return int(value)


def check_number(
    name: str,
    value: Any,
    low: float,
    high: float,
    *,
    closed: Literal["neither", "left", "right", "both"] = "neither",
    optional: bool = False,
) -> Any:
    """A number between ``low`` and ``high``, as a float; None passes where it is ``optional``.

    Args:
        name: of the argument.
        value: what the user gave.
        low: lower end.
        high: upper end.
        closed: which ends are allowed themselves.
        optional: whether None is allowed.

    Raises:
        ConfigError: naming the argument.

    >>> check_number("alpha", 0.1, 0, 1)
    0.1
    """
    if optional and value is None:
        return None
    left, right = closed in ("left", "both"), closed in ("right", "both")
    number = _float(value)
    if not (low < number < high or (left and number == low) or (right and number == high)):
        interval = f"{'[' if left else '('}{low:g}, {high:g}{']' if right else ')'}"
        raise ConfigError(f"{name} must be a number in {interval}{_or_none(optional)}; got {value!r}.")
    return number


def check_positive(name: str, value: Any, *, zero: bool = False, optional: bool = False) -> Any:
    """A positive finite number, as a float; 0 passes where ``zero`` is, and None where it is ``optional``.

    Raises:
        ConfigError: naming the argument.

    >>> check_positive("scale", 2)
    2.0
    """
    if optional and value is None:
        return None
    number = _float(value)
    if not (0 < number < math.inf or (zero and number == 0)):
        wanted = "at least 0" if zero else "positive"
        raise ConfigError(f"{name} must be {wanted} and finite{_or_none(optional)}; got {value!r}.")
    return number


def check_choice(name: str, value: Any, choices: Iterable[Any]) -> Any:
    """One of the choices.

    Raises:
        ConfigError: naming the argument and the choices.

    >>> check_choice("order", "glow", ("glow", "checkerboard"))
    'glow'
    """
    choices = list(choices)
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        *others, last = map(repr, choices)
        listed = f"{', '.join(others)} or {last}" if others else last
        raise ConfigError(f"{name} must be {listed}; got {value!r:.200}.")
    return value


def check_widths(name: str, value: Any, *, equal: bool = False) -> tuple[int, ...]:
    """Widths of layers as a tuple; ``equal`` for the layers of residual blocks.

    Raises:
        ConfigError: naming the argument.

    >>> check_widths("hidden", [64, 64])
    (64, 64)
    """
    widths = tuple(value) if isinstance(value, (tuple, list)) else (0,)
    if not all(is_integer(width) and width >= 1 for width in widths):
        raise ConfigError(f"{name} must be a tuple of positive integers, such as (128, 128); got {value!r}.")
    if equal and len(set(widths)) != 1:
        raise ConfigError(
            f"{name} must be widths that are all equal, such as (128, 128), in a residual network; got {value!r}."
        )
    return tuple(int(width) for width in widths)


def check_indices(name: str, value: Any, size: int, *, every: bool = False) -> tuple[int, ...]:
    """Distinct indices below ``size``, as a tuple; ``every`` for a permutation of all of them.

    Raises:
        ConfigError: naming the argument.

    >>> check_indices("order", [1, 0], 2, every=True)
    (1, 0)
    """
    chosen = tuple(value) if isinstance(value, (tuple, list, range)) else (-1,)
    if not all(is_integer(i) and 0 <= i < size for i in chosen) or len(set(chosen)) != len(chosen):
        raise ConfigError(f"{name} must contain distinct indices in 0, ..., {size - 1}; got {value!r:.80}.")
    if every and len(chosen) != size:
        raise ConfigError(f"{name} must contain each of 0, ..., {size - 1} exactly once; got {value!r:.80}.")
    return tuple(int(i) for i in chosen)


def check_seed(seed: Any, name: str = "seed") -> int:
    """A seed, any integer, as a number that all generators take: from 0 to 2^64 - 1.

    Raises:
        ConfigError: naming the argument.

    >>> check_seed(-1) == 2**64 - 1
    True
    """
    return int(check_integer(name, seed, None)) % 2**64


def is_integer(value: Any) -> bool:
    """Whether a value is an integer of Python or numpy, and no bool."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _float(value: Any) -> float:
    """The value as a float: infinite if it is too large for one, NaN if it is no number."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf  # pyright: ignore[reportOperatorIssue]


def _or_none(optional: bool) -> str:
    return ", or None" if optional else ""
