"""The `Distribution` interface: the simple measure that a model pushes forward."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, final

import torch
from torch import Size, Tensor, nn

from pushforward.errors import KindError
from pushforward.likelihood import REAL, Kind, Lebesgue, Measure, Support
from pushforward.transforms.base import Shape, as_shape

__all__ = ["Distribution"]


class Distribution(nn.Module, ABC):
    """A distribution with an event shape, a density and samples; leading dimensions are batch.

    A new base sets ``shape`` (and ``context``, ``support``, ``kind`` where the defaults do not fit) and writes
    :meth:`log_prob` and :meth:`sample`; one that is made of data writes :meth:`initialize` too.
    """

    shape: Shape
    context: int = 0
    """Width of the context that the base reads; 0 for none. Bases without one ignore a context."""
    support: Support = REAL
    kind: Kind = Kind.EXACT
    sample_passes: int = 1
    """Sequential network passes of one sample: how many steps wait for each other."""
    has_rsample: bool = True
    """Whether samples carry gradients to the parameters (and the context)."""

    def __init__(self, features: int | Shape) -> None:
        super().__init__()
        self.shape = as_shape(features)
        # A base may have no weights; this scalar keeps its device and floating type through .to(), .double() and files.
        self.register_buffer("anchor", torch.zeros(()))

    anchor: Tensor

    @property
    def autoregressive_order(self) -> tuple[int, ...] | str:
        """The order in which coordinates depend on each other, as in transforms; "any" where they do not."""
        return "any"

    @property
    def measure(self) -> Measure:
        """What the density refers to; Lebesgue unless a base says otherwise."""
        return Lebesgue(math.prod(self.shape))

    @abstractmethod
    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density in nats: ``(*batch, *shape)`` to ``batch``; -inf outside the support and infinitely far."""

    def log_prob_terms(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density of each coordinate given those before it in :attr:`places`, ``(*batch, *shape)``.

        Raises:
            KindError: for distributions whose coordinates depend on each other in no order.
        """
        raise KindError(f"{type(self).__name__} has no independent coordinates, so its density has no terms.")

    @abstractmethod
    def sample(self, batch: Size, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """``(*batch, *shape)``, on the generator's device; a context broadcasts to ``(*batch, context)``."""

    def initialize(self, z: Tensor, context: Tensor | None = None) -> None:
        """Set state that depends on data, once, from training rows as the transforms made them; most distributions have none."""

    @final
    def like(self, generator: torch.Generator | None) -> dict[str, Any]:
        """The ``dtype`` and ``device`` of samples, as keywords for torch's factory functions."""
        device = self.anchor.device if generator is None else generator.device
        return {"dtype": self.anchor.dtype, "device": device}
