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
    """Stack of block autoregressive networks over a standard normal; output i of a network increases with coordinate i.

    log p(x) = log N(z; 0, I) + sum over layers and coordinates of log dz_i/dx_i (eq. 2). The derivatives are products
    of positive blocks, computed in logarithms (eq. 8). A gate mixes the output of a layer with its input (eq. 11), and
    the order is reversed from layer to layer. ``log_prob`` takes one pass a layer and is the fast direction; sampling
    solves one equation for each coordinate in turn. Weights are stored as logarithms, which change slowly: train with
    ``learning_rate=1e-2``, as in the paper, rather than 1e-3.

    Args:
        features: D.
        context: width of the context that every layer reads.
        layers: number of block autoregressive networks; the paper uses 5. With 1 the model factorizes in the order of
            the columns.
        hidden: number of units of each coordinate in each hidden layer; the paper uses one or two layers of 10 or 40.
        standardize: standardize the data first.

    Raises:
        ConfigError: for sizes that are not possible.

    Example:
        >>> import torch
        >>> model = BNAF(features=3, layers=2, hidden=(8,))
        >>> x = model.sample(4, seed=0)
        >>> torch.allclose(model.decode(model.encode(x)), x, atol=1e-4)
        True
    """

    def __init__(
        self,
        features: int,
        context: int = 0,
        *,
        layers: int = 3,
        hidden: tuple[int, ...] = (10, 10),
        standardize: bool = True,
    ) -> None:
        check_integer("features", features)
        transforms: list[Transform] = []
        for k in range(check_integer("layers", layers)):
            if k and features > 1:
                transforms.append(Reverse(features))
            transforms.append(BlockAutoregressive(features, hidden=hidden, context=context))
        super().__init__(vector_chain(features, transforms, context=context, standardize=standardize), Normal(features))
        self.features, self.context, self.layers = features, context, layers
        self.hidden, self.standardize = tuple(hidden), standardize
