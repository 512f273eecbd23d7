"""Exponential moving average of the weights; the average is what is evaluated and kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

__all__ = ["WeightAverage"]


class WeightAverage:
    """Exponential moving average of parameters (Polyak and Juditsky 1992).

    After step t it is a_t = d a_{t-1} + (1 - d) w_t with d = min(decay, (1 + t) / (10 + t)). Early in training it
    averages about the last tenth of the steps, so that it does not lag in a short run; later it averages about the last
    1 / (1 - decay) steps. Training continues with the weights w themselves.

    Args:
        parameters: parameters to average. The average starts at their present values.
        decay: decay in (0, 1).
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self.parameters = list(parameters)
        self.decay = decay
        self.values = [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Include the weights after step ``step``, counted from 1."""
        update_average = get_ema_multi_avg_fn(min(self.decay, (1 + step) / (10 + step)))
        update_average(self.values, [parameter.detach() for parameter in self.parameters], step)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Set the parameters to the average inside the ``with`` block."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        # Copies change the version of a parameter, so caches that check it notice; exchanging the storage would not.
        for parameter, value in zip(self.parameters, self.values, strict=True):
            weights = parameter.detach().clone()
            parameter.copy_(value)
            value.copy_(weights)

    def state(self) -> dict[str, Tensor]:
        """The averages, by the index of their parameter."""
        return {str(index): value for index, value in enumerate(self.values)}

    @torch.no_grad()
    def load(self, state: dict[str, Tensor]) -> None:
        """Continue from averages that :meth:`state` returned.

        Raises:
            KeyError: if the number of averages differs.
            RuntimeError: if a shape differs.
        """
        if len(state) != len(self.values):
            raise KeyError(f"{len(state)} averages for {len(self.values)} parameters")
        for index, value in enumerate(self.values):
            value.copy_(state[str(index)])
