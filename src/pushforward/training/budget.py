"""How long to train, and how the learning rate follows: epochs, steps, time and schedules."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from pushforward.errors import ConfigError
from pushforward.numerics.checks import check_integer, check_positive

__all__ = ["Budget", "Schedule", "make_schedule", "plan", "seconds"]

Schedule = Callable[[float], float]
"""From the part of the budget that is spent, in [0, 1], to the factor of the learning rate."""

_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_DEFAULT_EPOCHS, _FEWEST, _MOST = 200, 1_000, 20_000


@dataclass(frozen=True)
class Budget:
    """The end of training: after ``steps`` or ``seconds``, whichever comes first."""

    steps: int | None
    seconds: float | None
    name: str = "max_steps"
    """What the user set that gave ``steps``."""

    def spent(self, step: int, elapsed: float) -> float:
        """Part of the budget that is used, in [0, 1]."""
        parts = [0.0]
        if self.steps is not None:
            parts.append(step / self.steps if self.steps else 1.0)
        if self.seconds is not None:
            parts.append(elapsed / self.seconds if self.seconds else 1.0)
        return min(1.0, max(parts))

    def reason(self, step: int, elapsed: float) -> str | None:
        """Why training ends here, or None if it goes on."""
        if self.steps is not None and step >= self.steps:
            return self.name
        if self.seconds is not None and elapsed >= self.seconds:
            return "max_time"
        return None


def plan(
    epochs: float | None, max_steps: int | None, max_time: float | str | None, steps_per_pass: float | None
) -> Budget:
    """The budget that the three limits describe; without any of them 200 passes, but 1,000 to 20,000 steps.

    Args:
        epochs: passes over the training rows; may be a fraction.
        max_steps: optimizer steps.
        max_time: seconds, or text as :func:`seconds` reads it.
        steps_per_pass: steps in a pass, None if unknown.

    Raises:
        ConfigError: for a limit that is no positive number, or epochs over data of unknown length.
    """
    check_integer("max_steps", max_steps, 0, optional=True)
    check_positive("epochs", epochs, zero=True, optional=True)
    limit = None if max_time is None else seconds(max_time)
    if epochs is None and max_steps is None and limit is None:
        passes = _MOST if steps_per_pass is None else math.ceil(_DEFAULT_EPOCHS * steps_per_pass)
        return Budget(min(max(passes, _FEWEST), _MOST), None)
    if epochs is None:
        return Budget(max_steps, limit)
    if steps_per_pass is None:
        raise ConfigError("these data have no length, so epochs cannot be counted: give max_steps or max_time.")
    steps = math.ceil(epochs * steps_per_pass)
    if max_steps is not None and max_steps <= steps:
        return Budget(max_steps, limit)
    return Budget(steps, limit, "epochs")


def seconds(text: float | str, name: str = "max_time") -> float:
    """Seconds from a number or from text such as "90s", "5m" or "1h30m".

    Raises:
        ConfigError: for anything else.

    >>> seconds("1h30m"), seconds(12.5)
    (5400.0, 12.5)
    """
    if isinstance(text, int | float) and not isinstance(text, bool) and 0 <= text < math.inf:
        return float(text)
    if isinstance(text, str) and re.fullmatch(r"(\d+(\.\d+)?[dhms])+", text):
        return sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([\d.]+)([dhms])", text))
    raise ConfigError(f"{name} must be seconds, or text such as '90s', '5m' or '1h30m'; got {text!r}.")


def make_schedule(schedule: str | Schedule | None) -> Schedule:
    """The schedule that the user named: "cosine" (1 to 0, half a period), None (constant) or a function.

    Raises:
        ConfigError: for another name.
    """
    if schedule is None:
        return lambda spent: 1.0
    if schedule == "cosine":
        return lambda spent: 0.5 * (1.0 + math.cos(math.pi * spent))
    if callable(schedule):
        return schedule
    raise ConfigError(
        f"schedule must be 'cosine', None (constant) or a function of the part of the budget spent; got {schedule!r}."
    )
