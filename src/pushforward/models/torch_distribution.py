"""A model as a ``torch.distributions`` object."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, constraints

from pushforward.errors import InputError
from pushforward.likelihood import REAL, Support
from pushforward.models.pyro_distribution import pyro_class
from pushforward.models.sampling import check_sample_shape
from pushforward.models.validation import check_data
from pushforward.transforms.adapters import LessOrEqual
from pushforward.transforms.base import check_context

if TYPE_CHECKING:
    from pushforward.models.base import Model

__all__ = ["ModelDistribution"]


class ModelDistribution(Distribution):
    """A model given a context, for Pyro, mixtures, KL by Monte Carlo, and other code that takes a torch distribution.

    The batch shape is that of the context, and the event shape is that of the data. Gradients reach the weights and the
    context. :meth:`sample` draws from torch's global generator, so ``torch.manual_seed`` repeats it.

    In a program that has imported Pyro it is a distribution of Pyro too, with ``to_event``, ``mask`` and ``expand_by``, and
    ``pyro.sample("x", model.distribution())`` works in models and guides. ``pyro.module("flow", model)`` in the same function
    registers the weights, so that inference trains them.

    Args:
        model: any model. If it has no exact log-density, :meth:`log_prob` raises an error and sampling still works.
        context: ``(*batch_shape, context)``; None for a model without a context, with an empty batch shape.
        validate_args: check that values are in the support. None is the default of torch, which is True until
            a program uses ``torch.compile`` itself and False from then on.

    Raises:
        InputError: if the context is missing or has the wrong width.

    Example:
        >>> import torch
        >>> from torch.distributions import Independent
        >>> from pushforward import models
        >>> model = models.RealNVP(features=2, context=3)
        >>> distribution = model.distribution(torch.zeros(5, 3))
        >>> distribution.batch_shape, distribution.event_shape, distribution.sample((4,)).shape
        (torch.Size([5]), torch.Size([2]), torch.Size([4, 5, 2]))
        >>> Independent(distribution, 1).log_prob(torch.zeros(5, 2)).shape
        torch.Size([])
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> ModelDistribution:
        """An object of the class for Pyro, if the program has imported it."""
        return object.__new__(pyro_class(cls) if cls is ModelDistribution else cls)

    arg_constraints = {}  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]  # noqa: RUF012

    def __init__(self, model: Model, context: Tensor | None = None, validate_args: bool | None = None) -> None:
        check_context(context, model.context_features, type(model).__name__)
        self.model = model
        self.context = context
        batch_shape = Size() if context is None else context.shape[:-1]
        super().__init__(batch_shape, Size(model.shape), validate_args=validate_args)

    @property
    def has_rsample(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether samples carry gradients; False if the base or a transform makes a discrete choice."""
        return self.model.base.has_rsample and all(part.has_rsample for part in self.model.chain)

    @property
    def support(self) -> constraints.Constraint:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The interval of the data, as a constraint on whole events."""
        return constraints.independent(_constraint(self._data_support), len(self.event_shape))

    @property
    def _data_support(self) -> Support:
        domain = self.model.chain.domain
        return self.model.base.support if domain is None else domain

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density in nats; ``(*shape, *event_shape)``, broadcast against the batch shape, to the broadcast batch.

        Raises:
            KindError: if ``log_prob`` of the model raises it.
            InputError: for a wrong shape or NaN, or, with ``validate_args``, a value outside the support.
        """
        check_data(value, self.model.shape, type(self.model).__name__)
        if self._validate_args and not self._data_support.contains(value).all():
            raise InputError(
                f"a value is outside {self._data_support}, the support of this model: pass validate_args=False to get "
                "its log-density, -inf."
            )
        batch = value.shape[: value.dim() - len(self.event_shape)]
        try:
            batch = torch.broadcast_shapes(batch, self.batch_shape)
        except RuntimeError:
            raise InputError(
                f"values of batch shape {tuple(batch)} do not broadcast to the context's {tuple(self.batch_shape)}."
            ) from None
        return self.model.log_prob(value.expand(*batch, *self.event_shape), self.context)

    def sample(self, sample_shape: int | tuple[int, ...] = ()) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """``(*sample_shape, *batch_shape, *event_shape)``, without gradient."""
        return self._draw(self.model.sample, sample_shape)

    def rsample(self, sample_shape: int | tuple[int, ...] = ()) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The same as :meth:`sample`, with gradients to the weights and the context.

        Raises:
            KindError: unless :attr:`has_rsample`.
        """
        return self._draw(self.model.rsample, sample_shape)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> ModelDistribution:
        """The same distribution with a larger batch shape; nothing is copied.

        Raises:
            InputError: if the batch shape of this distribution does not expand to it.
        """
        new: Any = self._get_checked_instance(ModelDistribution, _instance)
        try:
            torch.empty(self.batch_shape, device="meta").expand(*batch_shape)
        except RuntimeError:
            raise InputError(
                f"a batch shape of {tuple(self.batch_shape)} does not expand to {tuple(batch_shape)}."
            ) from None
        new.model = self.model
        new.context = None if self.context is None else self.context.expand(*batch_shape, self.context.shape[-1])
        Distribution.__init__(new, Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def _draw(self, draw: Callable[..., Tensor], sample_shape: int | tuple[int, ...]) -> Tensor:
        shape = check_sample_shape(sample_shape)
        if not self.model.context_features:
            return draw(shape + self.batch_shape)
        return draw(shape, self.context)

    def __repr__(self) -> str:
        batch, event = tuple(self.batch_shape), tuple(self.event_shape)
        return f"ModelDistribution({type(self.model).__name__}, batch_shape={batch}, event_shape={event})"


def _constraint(support: Support) -> constraints.Constraint:
    if support.ends:
        each = [_constraint(Support(low, high)) for low, high in support.ends]
        return constraints.cat(each, dim=-1, lengths=[1] * len(each))
    if support == REAL:
        return constraints.real
    if math.isinf(support.high):
        return constraints.greater_than_eq(support.low)
    if math.isinf(support.low):
        return LessOrEqual(support.high)
    return constraints.interval(support.low, support.high)
