"""Block neural autoregressive flow (De Cao, Aziz, Titov 2019, arXiv 1904.04676)."""

from __future__ import annotations

from pushforward.distributions import Normal
from pushforward.models.base import Model
from pushforward.models.vector.building import vector_chain
from pushforward.numerics.checks import check_integer
from pushforward.registry import register
from pushforward.transforms import BlockAutoregressive, Reverse, Transform

__all__ = ["BNAF"]


@register("models")
class BNAF(Model):
    """Stack of block autoregressive transforms over a standard normal, each one network that is monotone in its own coordinate.

    log p(x) = log N(z; 0, I) + sum over transforms and coordinates of log dz_i/dx_i (eq. 2), where the derivatives are products
    of positive blocks, taken in logarithms (eq. 8). Transforms are joined to their input by a gate (eq. 11), and the order is
    reversed from transform to transform. ``log_prob`` takes one pass a transform and is the fast direction; sampling solves one equation
    for each coordinate in turn. Weights are held as logarithms, which move slowly: train with the paper's ``lr=1e-2``
    rather than 1e-3.

    Args:
        features: D.
        context: width of the context that every transform reads.
        flows: block autoregressive transforms; the paper uses 5. With 1 the model factorizes in the order of the columns.
        hidden: units of each coordinate in each hidden layer; the paper uses one or two layers of 10 or 40.
        standardize: standardize the data first.

    Raises:
        ConfigError: for impossible sizes.

    Example:
        >>> import torch
        >>> model = BNAF(features=3, flows=2, hidden=(8,))
        >>> x = model.sample(4, seed=0)
        >>> torch.allclose(model.decode(model.encode(x)), x, atol=1e-4)
        True
    """

    def __init__(
        self,
        features: int,
        context: int = 0,
        *,
        flows: int = 3,
        hidden: tuple[int, ...] = (10, 10),
        standardize: bool = True,
    ) -> None:
        transforms: list[Transform] = []
        for k in range(check_integer("flows", flows)):
            if k and features > 1:
                transforms.append(Reverse(features))
            transforms.append(BlockAutoregressive(features, hidden=hidden, context=context))
        super().__init__(vector_chain(features, transforms, context=context, standardize=standardize), Normal(features))
        self.features, self.context, self.flows = features, context, flows
        self.hidden, self.standardize = tuple(hidden), standardize
