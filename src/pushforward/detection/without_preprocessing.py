"""A model without its preprocessing: the space in which gradients mean something.

Pixels are integers and columns have units, so a gradient with respect to the raw input is zero, or a matter of units. The
leading transforms that nothing was learned for (dequantization, logit, standardization) are therefore taken off, and gradients,
curvatures and Jacobians are those of log p(y) in the coordinates y behind them: what the flow itself sees.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pushforward.likelihood import Measure
from pushforward.models import Model
from pushforward.numerics import Noise, RowNoise
from pushforward.transforms import Chain, Flatten, Transform, VariationalDequantize

__all__ = ["WithoutPreprocessing", "differentiable"]


class WithoutPreprocessing(nn.Module):
    """log p(y) of a model behind its preprocessing, nats; it shares the model's weights.

    Args:
        model: any model without a context.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        count = next((k for k, part in enumerate(model.chain) if not _fixed(part)), len(model.chain))
        self.chain = model.chain[count:]
        object.__setattr__(self, "front", model.chain[:count])  # its weights are not among this module's parameters
        self.base = model.base
        self._prepare = model.prepare

    front: Chain

    @property
    def measure(self) -> Measure:
        """What log p(y) refers to."""
        return self.chain.measure(self.base.measure)

    @torch.no_grad()
    def reach(self, x: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
        """y of data x, ``(n, *shape)``, and what the preprocessing adds to log p(x), ``(n,)``; -inf where x is impossible."""
        x, _, far = self._prepare(x, None)
        step = self.front.encode(x, noise=RowNoise(seed))
        return step.z, far + step.contribution

    def encode(self, y: Tensor, noise: Noise = None) -> tuple[Tensor, Tensor]:
        """z, and the contribution of the way from y to z."""
        step = self.chain.encode(y, noise=noise)
        return step.z, step.contribution

    def forward(self, y: Tensor) -> Tensor:
        """log p(y), ``(n,)``."""
        z, contribution = self.encode(y, RowNoise(0))
        return contribution + self.base.log_prob(z)


@contextmanager
def differentiable(y: Tensor) -> Iterator[Tensor]:
    """A copy of y that wants a gradient, and gradients switched on, whatever the caller's modes are."""
    with torch.inference_mode(False), torch.enable_grad():
        yield y.detach().clone().requires_grad_()


def _fixed(part: Transform) -> bool:
    """Whether a leading transform is preprocessing: nothing is learned in it, or it only makes integers real."""
    if isinstance(part, (Flatten, VariationalDequantize)):
        return True
    return part.autoregressive_order == "any" and next(part.parameters(), None) is None
