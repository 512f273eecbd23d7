"""A moving average of the weights, which is what is evaluated and kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

__all__ = ["WeightAverage"]


class WeightAverage:
    """Exponential moving average of parameters (Polyak and Juditsky 1992).

    After step t it is a_t = d a_{t-1} + (1 - d) w_t with d = min(decay, (1 + t) / (10 + t)): at first a mean of about the
    last tenth of the steps, so that a short run does not lag, later of about the last 1 / (1 - decay). Training goes on
    with the weights w themselves.

    Args:
        parameters: to average; nothing is copied until the first call.
        decay: in (0, 1).
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self.parameters = list(parameters)
        self.decay = decay
        self.values = [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after step ``step``, counted from 1."""
        move = get_ema_multi_avg_fn(min(self.decay, (1 + step) / (10 + step)))
        move(self.values, [parameter.detach() for parameter in self.parameters], step)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """While it lasts, the parameters hold the average."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        # By copies, not by exchanging storage: whoever keeps something made from a parameter looks at its version.
        for parameter, value in zip(self.parameters, self.values, strict=True):
            kept = parameter.detach().clone()
            parameter.copy_(value)
            value.copy_(kept)

    def state(self) -> dict[str, Tensor]:
        """The average, by place."""
        return {str(place): value for place, value in enumerate(self.values)}

    @torch.no_grad()
    def load(self, state: dict[str, Tensor]) -> None:
        """Go on with an average that :meth:`state` gave.

        Raises:
            KeyError: if there are not as many values.
            RuntimeError: if their shapes differ.
        """
        if len(state) != len(self.values):
            raise KeyError(f"{len(state)} averages of {len(self.values)} parameters")
        for place, value in enumerate(self.values):
            value.copy_(state[str(place)])
