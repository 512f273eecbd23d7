"""`Distribution`, the interface of base distributions."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, final

import torch
from torch import Size, Tensor, nn

from pushforward.errors import InputError, KindError
from pushforward.likelihood import REAL, Kind, Lebesgue, Measure, Support
from pushforward.transforms.base import Shape, as_shape, check_context

__all__ = ["Distribution", "check_batch"]


class Distribution(nn.Module, ABC):
    """The distribution of the noise z at the end of a chain of transforms: a density and samples, of one event shape.

    A new distribution implements :meth:`log_prob` and :meth:`sample`, calls ``super().__init__`` with its shape, and sets the
    attributes below whose defaults do not fit. One that depends on training data also overrides :meth:`initialize`. Leading
    dimensions are batch.

    Example:
        >>> import torch, pushforward as pf
        >>> base = pf.distributions.StudentT(2, df=5.0)
        >>> base.sample((3,)).shape, base.log_prob(torch.zeros(4, 2)).shape
        (torch.Size([3, 2]), torch.Size([4]))
    """

    shape: Shape
    context: int = 0
    """Width of the context that the distribution reads; 0 for none, and then it ignores a context."""
    support: Support = REAL
    """The set of possible z; elsewhere the log-density is -inf."""
    kind: Kind = Kind.EXACT
    """How the result of :meth:`log_prob` relates to the true log-density."""
    sample_passes: int = 1
    """Network passes of one sample that must run one after the other."""
    has_rsample: bool = True
    """Whether samples have gradients with respect to the parameters and the context."""

    def __init__(self, features: int | Shape) -> None:
        super().__init__()
        self.shape = as_shape(features)
        # Keeps device and floating type through .to(), .double() and files, also for a distribution without weights.
        self.register_buffer("anchor", torch.zeros(()))

    anchor: Tensor

    @property
    def autoregressive_order(self) -> tuple[int, ...] | str:
        """The order in which coordinates depend on each other, as for transforms.

        "any" if they are independent, or if the class has no :meth:`log_prob_terms`.
        """
        return "any"

    @property
    def measure(self) -> Measure:
        """The measure that the density refers to; Lebesgue by default."""
        return Lebesgue(math.prod(self.shape))

    @abstractmethod
    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density in nats: ``(*batch, *shape)`` to ``batch``; -inf outside the support and for infinite z.

        Raises:
            InputError: for another event shape.
        """

    def log_prob_terms(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density of each coordinate given those before it in :attr:`autoregressive_order`, ``(*batch, *shape)``.

        Raises:
            InputError: for another event shape.
            KindError: if the coordinates depend on each other in no order.
        """
        raise KindError(
            f"{type(self).__name__} has no log_prob_terms, the log-density of each coordinate given those before it: "
            "its coordinates depend on each other in no order, or the class leaves the method out."
        )

    @abstractmethod
    def sample(self, batch: Size, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """Samples ``(*batch, *shape)``, on the generator's device; a context broadcasts to ``(*batch, context)``."""

    def initialize(self, z: Tensor, context: Tensor | None = None) -> None:
        """Set what depends on data, once, from encoded training rows; most distributions have nothing to set."""

    @property
    def reads_raw_context(self) -> bool:
        """Whether it standardizes the context by itself, so that the model of which it is the base must not."""
        return False

    @property
    def needs_refresh(self) -> bool:
        """Whether it contains batch normalization, so that :meth:`refresh` is needed before evaluation."""
        return False

    def refresh(self, z: Tensor, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> None:
        """Set statistics that depend on the current weights from encoded training rows; most distributions have none."""

    @final
    def like(self, generator: torch.Generator | None) -> dict[str, Any]:
        """The ``dtype`` and ``device`` of samples, as keyword arguments of torch's factory functions."""
        device = self.anchor.device if generator is None else generator.device
        return {"dtype": self.anchor.dtype, "device": device}


def check_batch(context: Tensor | None, width: int, batch: Size, owner: str) -> None:
    """Refuse a context that is missing, has the wrong width, or does not broadcast to ``(*batch, width)``.

    Raises:
        InputError: naming the owner.
    """
    check_context(context, width, owner)
    if not width or context is None:
        return
    given = context.shape[:-1]
    if len(given) > len(batch) or any(a not in (1, b) for a, b in zip(reversed(given), reversed(batch), strict=False)):
        raise InputError(
            f"a context of shape {tuple(context.shape)} does not broadcast to the batch {tuple(batch)} of {owner}: give one context, or "
            "one for each of the batch."
        )
