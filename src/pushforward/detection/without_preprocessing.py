"""A model without its preprocessing, for gradients with respect to what the flow itself reads.

Pixels are integers and columns have units, so the gradient with respect to the raw input is zero or depends on the units.
The leading transforms without learned parameters (dequantization, logit, standardization) are therefore left out: gradients,
curvatures and Jacobians are those of log p(y), where y is the output of these transforms.
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
    """log p(y) in nats, where y is the output of a model's preprocessing; the weights are the model's own.

    Args:
        model: any model without a context.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        count = next((k for k, part in enumerate(model.chain) if not _fixed(part)), len(model.chain))
        self.chain = model.chain[count:]
        # Not a submodule: its weights are not among this module's parameters.
        object.__setattr__(self, "preprocessing", model.chain[:count])
        self.base = model.base
        self._prepare = model.prepare

    preprocessing: Chain

    @property
    def measure(self) -> Measure:
        """The measure of log p(y)."""
        return self.chain.measure(self.base.measure)

    @torch.no_grad()
    def preprocess(self, x: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Preprocess x, ``(n, *shape)``: y, and the contribution to log p(x), ``(n,)``; -inf where x is outside the support."""
        x, _, far = self._prepare(x, None)
        step = self.preprocessing.encode(x, noise=RowNoise(seed))
        return step.z, far + step.contribution

    def encode(self, y: Tensor, noise: Noise = None) -> tuple[Tensor, Tensor]:
        """z of y, and its contribution to log p(y)."""
        step = self.chain.encode(y, noise=noise)
        return step.z, step.contribution

    def forward(self, y: Tensor) -> Tensor:
        """log p(y), ``(n,)``."""
        z, contribution = self.encode(y, RowNoise(0))
        return contribution + self.base.log_prob(z)


@contextmanager
def differentiable(y: Tensor) -> Iterator[Tensor]:
    """A copy of y that requires a gradient, with gradients enabled whatever modes the caller has set."""
    with torch.inference_mode(False), torch.enable_grad():
        yield y.detach().clone().requires_grad_()


def _fixed(part: Transform) -> bool:
    """Whether a leading transform is preprocessing: it has no learned parameters, or it dequantizes."""
    if isinstance(part, (Flatten, VariationalDequantize)):
        return True
    return part.autoregressive_order == "any" and next(part.parameters(), None) is None
