"""How long to train and how the learning rate changes: budgets of steps and time, and schedules."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pushforward.errors import ConfigError

__all__ = ["Budget", "Schedule", "evaluation_interval", "is_duration", "make_budget", "make_schedule", "seconds"]

Schedule = Callable[[float], float]
"""Function from the used fraction of the budget, in [0, 1], to the factor of the learning rate."""

_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_DEFAULT_EPOCHS, _LEAST_STEPS, _MOST_STEPS = 200, 1_000, 20_000


@dataclass(frozen=True)
class Budget:
    """Training ends after ``steps`` or ``seconds``, whichever comes first."""

    steps: int | None
    seconds: float | None
    name: str = "max_steps"
    """The option that gave ``steps``; it is the reported reason for stopping."""

    def used(self, step: int, elapsed: float) -> float:
        """Used fraction of the budget, in [0, 1]."""
        fractions = [0.0]
        if self.steps is not None:
            fractions.append(step / self.steps if self.steps else 1.0)
        if self.seconds is not None:
            fractions.append(elapsed / self.seconds if self.seconds else 1.0)
        return min(1.0, max(fractions))

    def stop_reason(self, step: int, elapsed: float) -> str | None:
        """Name of the limit that is reached, or None."""
        if self.steps is not None and step >= self.steps:
            return self.name
        if self.seconds is not None and elapsed >= self.seconds:
            return "max_time"
        return None


def make_budget(
    epochs: float | None, max_steps: int | None, max_time: float | str | None, steps_per_pass: float | None
) -> Budget:
    """The budget given by three limits; without any of them 200 passes, but 1,000 to 20,000 steps.

    Args:
        epochs: passes over the training rows; may be a fraction.
        max_steps: optimizer steps.
        max_time: seconds, or text that :func:`seconds` reads.
        steps_per_pass: steps in one pass, or None if unknown.

    Raises:
        ConfigError: for epochs over data of unknown length.
    """
    limit = None if max_time is None else seconds(max_time)
    if epochs is None and max_steps is None and limit is None:
        steps = _MOST_STEPS if steps_per_pass is None else math.ceil(_DEFAULT_EPOCHS * steps_per_pass)
        return Budget(min(max(steps, _LEAST_STEPS), _MOST_STEPS), None)
    if epochs is None:
        return Budget(max_steps, limit)
    if steps_per_pass is None:
        raise ConfigError(
            "epochs cannot be counted because the data have no length: set max_steps or max_time instead."
        )
    steps = math.ceil(epochs * steps_per_pass)
    if max_steps is not None and max_steps <= steps:
        return Budget(max_steps, limit)
    return Budget(steps, limit, "epochs")


def evaluation_interval(steps_per_pass: float | None) -> int:
    """Default number of steps between evaluations: one pass, but 25 to 1,000; 500 if the length is unknown."""
    return 500 if steps_per_pass is None else min(max(round(steps_per_pass), 25), 1000)


def seconds(duration: float | str, name: str = "max_time") -> float:
    """Seconds from a number or from text such as "90s", "5m" or "1h30m".

    Args:
        duration: number or text.
        name: of the option, for the error message.

    Raises:
        ConfigError: for anything else.

    >>> seconds("1h30m"), seconds(12.5)
    (5400.0, 12.5)
    """
    if not is_duration(duration):
        raise ConfigError(
            f"{name} must be a number of seconds, or text such as '90s', '5m' or '1h30m'; got {duration!r}."
        )
    if isinstance(duration, str):
        return sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([\d.]+)([dhms])", duration))
    return float(duration)


def is_duration(value: Any) -> bool:
    """Whether :func:`seconds` reads the value."""
    if isinstance(value, str):
        return re.fullmatch(r"(\d+(\.\d+)?[dhms])+", value) is not None
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def make_schedule(schedule: str | Schedule | None) -> Schedule:
    """The schedule as a function: "cosine" falls from 1 to 0 over half a period, None is constant.

    A function that is given is called in each step, and raises a ConfigError for a factor that is no finite number of at least 0.
    """
    if schedule is None:
        return lambda used: 1.0
    if isinstance(schedule, str):
        return lambda used: 0.5 * (1.0 + math.cos(math.pi * used))
    return lambda used: _factor(schedule(used), used)


def _factor(value: Any, used: float) -> float:
    """What a schedule returned, as a float.

    Raises:
        ConfigError: unless it is a finite number of at least 0.
    """
    try:
        factor = math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError):
        factor = math.nan
    if not 0 <= factor < math.inf:
        raise ConfigError(f"schedule must return a finite number of at least 0; got {value!r:.80} at u = {used:.4g}.")
    return factor
