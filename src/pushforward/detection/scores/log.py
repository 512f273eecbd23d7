"""The logarithm of a positive statistic that spans orders of magnitude."""

from __future__ import annotations

import torch
from torch import Tensor

from pushforward.detection.scores.base import Need, Statistic
from pushforward.errors import ConfigError
from pushforward.registry import register

__all__ = ["Log"]


@register("scores")
class Log(Statistic):
    """log(max(v, 1e-9)) of each column v >= 0 of a statistic, so that a density of the statistics compares ratios.

    Args:
        statistic: statistic with nonnegative columns, such as :class:`~pushforward.detection.scores.CodeLength` or a
            distance; it is fitted together with this one.

    Raises:
        ConfigError: if ``statistic`` is not a :class:`~pushforward.detection.scores.Statistic`.

    Example:
        >>> import torch
        >>> from pushforward.detection.scores import CodeLength, Log
        >>> Log(CodeLength("png")).names
        ('log png',)
    """

    def __init__(self, statistic: Statistic) -> None:
        super().__init__()
        if not isinstance(statistic, Statistic):
            raise ConfigError(f"Log needs a Statistic; got {type(statistic).__name__}.")
        self.statistic = statistic
        self.needs: frozenset[Need] = statistic.needs  # pyright: ignore[reportIncompatibleVariableOverride]

    @property
    def names(self) -> tuple[str, ...]:
        """The statistic's names, each with the prefix "log"."""
        return tuple(f"log {name}" for name in self.statistic.names)

    def _learn(self, reference: Tensor) -> None:
        self.statistic.fit(reference)

    def _values(self, x: Tensor) -> Tensor:
        values = self.statistic.values(x)
        return torch.log(values.clamp(min=1e-9))
