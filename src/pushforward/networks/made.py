"""MADE: a masked network whose outputs for coordinate i depend on earlier coordinates only (Germain et al. 2015)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pushforward.networks.activations import activation as make_activation
from pushforward.networks.activations import replace
from pushforward.networks.masked import MaskedLinear
from pushforward.networks.mlp import check_options, required_context
from pushforward.numerics import bound_input
from pushforward.numerics.checks import check_indices, check_integer, check_widths
from pushforward.registry import register

__all__ = ["MADE"]


class MaskedBlock(nn.Module):
    """Residual block of masked layers. All hidden layers have the same degrees, so the sum keeps the order."""

    def __init__(self, mask: Tensor, activation: str, dropout: float) -> None:
        super().__init__()
        self.first, self.second = MaskedLinear(mask), MaskedLinear(mask)
        nn.init.uniform_(self.second.weight, -1e-3, 1e-3)
        self.second.clear()
        nn.init.uniform_(self.second.bias, -1e-3, 1e-3)
        self.act = make_activation(activation)
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor) -> Tensor:
        """``(*batch, width)`` to the same shape."""
        return h + self.second(self.dropout(replace(self.act, self.first(self.act(h)))))


@register("networks")
class MADE(nn.Module):
    """Masked autoencoder: every output of coordinate i depends on the coordinates before it and on the context only.

    The degree of coordinate i is its position in ``order``, 1 to D. A hidden unit of degree m reads inputs of degree <= m, and
    an output of degree i reads hidden units of degree < i (Germain et al. 2015, eq. 13-14). Hidden degrees increase evenly over
    the units, from 1, or from 0 if there is a context, so that it reaches the first coordinate too. With D = 1 and no context
    the outputs are trainable constants.

    Args:
        features: D.
        outputs: number of parameters of each coordinate.
        hidden: widths of the hidden layers; in a residual network the number of blocks and their equal width.
        context: width of the context; 0 for none.
        order: ``order[k]`` is the coordinate at position k; None is 0, 1, ..., D-1.
        residual: residual blocks (ResMADE) instead of plain layers.
        activation: name of the activation.
        dropout: probability, after each hidden activation.
        input_bound: inputs and context are clamped to [-input_bound, input_bound], so that the output is bounded.
        output_gain: factor on the last layer's initial weights; its bias starts at 0.
        copies: number of values of each coordinate in the input, such as 2 for all cosines and then all sines.

    Raises:
        ConfigError: for impossible widths, or an order that is not a permutation.

    Example:
        >>> import torch
        >>> MADE(features=3, outputs=2, hidden=(16,))(torch.zeros(5, 3)).shape       # parameters come first
        torch.Size([2, 5, 3])
    """

    def __init__(
        self,
        features: int,
        outputs: int,
        hidden: tuple[int, ...] = (128, 128),
        *,
        context: int = 0,
        order: tuple[int, ...] | None = None,
        residual: bool = False,
        activation: str = "relu",
        dropout: float = 0.0,
        input_bound: float | None = 10.0,
        output_gain: float = 1.0,
        copies: int = 1,
    ) -> None:
        super().__init__()
        self.features, self.outputs = check_integer("features", features), check_integer("outputs", outputs)
        self.context = check_integer("context", context, 0)
        self.hidden = check_widths("hidden", hidden, equal=residual)
        self.order = None if order is None else check_indices("order", order, features, every=True)
        self.residual, self.activation, self.dropout = residual, activation, dropout
        self.input_bound, self.output_gain = input_bound, output_gain
        self.copies = check_integer("copies", copies)
        check_options(dropout, input_bound)
        self.alone = features == 1 and not context
        """Whether the outputs are constants."""

        degrees = torch.empty(features, dtype=torch.int64)
        degrees[torch.tensor(self.order or range(features))] = torch.arange(1, features + 1)
        lowest = 0 if context or features == 1 else 1
        before = degrees.repeat(copies)
        layers: list[nn.Module] = []
        for index, width in enumerate(self.hidden):
            units = lowest + torch.arange(width) * (features - lowest) // width
            mask = units[:, None] >= before[None, :]
            if residual and index:
                layers.append(MaskedBlock(mask, activation, dropout))
            else:
                layers.append(MaskedLinear(mask))
            before = units
        if residual:
            layers.append(MaskedBlock(before[:, None] >= before[None, :], activation, dropout))
        self.layers = nn.ModuleList(layers)
        self.units_below = {
            width: [max(-((lowest - degree) * width // (features - lowest)), 0) for degree in range(features + 1)]
            for width in self.hidden
        }
        """For each hidden width, the number of units of degree below 0, 1, ..., D; units are sorted by degree."""
        self.last = MaskedLinear((degrees[:, None] > before[None, :]).repeat(outputs, 1), groups=outputs)
        with torch.no_grad():
            self.last.weight.mul_(output_gain)
            self.last.bias.zero_()
        self.act = make_activation(activation)
        self.drop = nn.Dropout(dropout)
        if context:
            # The context has separate units, so that every output, also the first, is a nonlinear function of it.
            width = self.hidden[0] if self.hidden else features
            self.context_in = nn.Linear(context, width)
            self.context_first = nn.Linear(width, width, bias=False) if self.hidden else None
            self.context_last = nn.Linear(width, outputs * features, bias=False)
            with torch.no_grad():
                self.context_last.weight.mul_(output_gain)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``(*batch, copies * features)`` to the parameters first: ``(outputs, *batch, features)``.

        Raises:
            InputError: if the context is missing or has the wrong width.
        """
        if self.alone and not (self.training and self.dropout):
            # The outputs are the same for every row.
            raw = self._run(x.new_zeros(x.shape[-1:]), context)
            return raw.reshape(self.outputs, *(1,) * x.dim()).expand(-1, *x.shape[:-1], 1)
        return self._run(x, context)

    def _run(self, x: Tensor, context: Tensor | None) -> Tensor:
        if self.input_bound is not None:
            x = bound_input(x, self.input_bound)
        first, last = self.context_terms(context)
        h = x
        for index, layer in enumerate(self.layers):
            h = layer(h)
            if index == 0 and first is not None:
                h = h + first
            if not self.residual:
                h = replace(self.act, h)
                if self.dropout:
                    h = self.drop(h)
        flat = self.last(h)
        if last is not None:
            flat = flat + last
        return flat.unflatten(-1, (self.outputs, self.features)).movedim(-2, 0)

    def context_terms(self, context: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """The terms of the context in the first hidden layer and in the outputs, ``(*batch, width)`` each; None without a context.

        Raises:
            InputError: if the context is missing or has the wrong width.
        """
        if not self.context:
            return None, None
        context = required_context(context, self.context, "MADE")
        if self.input_bound is not None:
            context = bound_input(context, self.input_bound)
        seen = replace(self.act, self.context_in(context))
        return None if self.context_first is None else self.context_first(seen), self.context_last(seen)
