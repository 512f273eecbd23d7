"""Discrete flow (Tran, Vafa, Agrawal, Dinh, Poole 2019, arXiv 1905.10347)."""

from __future__ import annotations

from typing import Any

from pushforward.distributions import Categorical
from pushforward.models.base import Model
from pushforward.numerics.checks import check_choice, check_integer
from pushforward.registry import register
from pushforward.transforms import Chain, ModuloAutoregressive, ModuloCoupling, OneHot, Transform

__all__ = ["DiscreteFlow"]


@register("models")
class DiscreteFlow(Model):
    """A permutation of the K^D states over independent categorical variables: log P(x) = log P_base(f(x)) (eq. 4).

    There is no log-determinant, so ``log_prob`` is an exact log-probability, on Counting(D). The permutation is a stack
    of shifts modulo K whose sizes depend on other columns. It can make columns independent, but it cannot change the
    set of probabilities that the base gives. Data are the integers 0, ..., K-1; any other number has probability 0.

    Training uses the straight-through gradient of the shifts, which is biased (sec. 4.3): expect local optima, and try
    several seeds.

    Args:
        features: D.
        categories: K.
        context: width of the context that every layer reads.
        layer: "autoregressive" or "coupling" (called bipartite in the paper).
        layers: number of layers; the order is reversed, or the halves are exchanged, from layer to layer.
        hidden: widths of the hidden layers of each network.
        temperature: temperature of the straight-through gradient. The paper uses 0.1; with 1 our training runs found
            poor local optima less often.

    Raises:
        ConfigError: for an unknown layer or sizes that are not possible.

    Example:
        >>> import torch
        >>> model = DiscreteFlow(2, categories=3, hidden=(16,))
        >>> states = torch.cartesian_prod(torch.arange(3), torch.arange(3))
        >>> round(model.log_prob(states).exp().sum().item(), 5)                 # over all K^D states
        1.0
    """

    def __init__(
        self,
        features: int,
        categories: int = 2,
        context: int = 0,
        *,
        layer: str = "autoregressive",
        layers: int = 2,
        hidden: tuple[int, ...] = (64, 64),
        temperature: float = 1.0,
    ) -> None:
        check_choice("layer", layer, ("autoregressive", "coupling"))
        options: dict[str, Any] = {"hidden": hidden, "context": context, "temperature": temperature}
        transforms: list[Transform] = [OneHot(features, categories)]
        for k in range(check_integer("layers", layers)):
            if layer == "autoregressive":
                order = "reverse" if k % 2 else None
                transforms.append(ModuloAutoregressive(features, categories, order=order, **options))
            else:
                transforms.append(ModuloCoupling(features, categories, flip=k % 2 == 1, **options))
        super().__init__(Chain(*transforms), Categorical(features, categories, trainable=True))
        self.features, self.categories, self.context, self.layer = features, categories, context, layer
        self.layers, self.hidden, self.temperature = layers, tuple(hidden), temperature
