"""`Flow`: a model built from any chain and any base distribution."""

from __future__ import annotations

from pushforward.distributions.base import Distribution
from pushforward.models.base import Model
from pushforward.registry import register
from pushforward.transforms.base import Transform

__all__ = ["Flow"]


@register("models")
class Flow(Model):
    """A model of your own: any chain of transforms over any base distribution.

    Args:
        chain: a transform, usually a :class:`~pushforward.transforms.Chain`.
        base: a distribution whose shape is the output shape of the chain.

    Raises:
        ConfigError: if shapes or widths of contexts differ.

    Example:
        >>> import torch
        >>> from pushforward import distributions, transforms, models
        >>> model = models.Flow(transforms.Chain(transforms.Logit(2), transforms.Affine(2)), distributions.Normal(2))
        >>> model.log_prob(torch.full((1, 2), 0.5))     # log N(0, I) at 0, plus 2 log 4
        tensor([0.9347])
    """

    def __init__(self, chain: Transform, base: Distribution) -> None:
        super().__init__(chain, base)
