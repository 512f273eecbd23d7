"""Fully connected conditioners: multi-layer perceptrons, plain and residual."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pushforward.errors import InputError
from pushforward.networks.activations import activation as make_activation
from pushforward.networks.activations import replace
from pushforward.numerics import bound_input
from pushforward.numerics.checks import check_integer, check_number, check_positive, check_widths
from pushforward.registry import register

__all__ = ["MLP", "check_options", "required_context"]


def check_options(dropout: float, input_bound: float | None) -> None:
    """Check that ``dropout`` is a probability below 1, and ``input_bound`` a positive number or None.

    Raises:
        ConfigError: naming the argument.
    """
    check_number("dropout", dropout, 0, 1, closed="left")
    check_positive("input_bound", input_bound, optional=True)


def required_context(context: Tensor | None, width: int, owner: str) -> Tensor:
    """The context of a network that was built with one.

    Raises:
        InputError: if it is missing or has the wrong width.
    """
    if context is None or context.shape[-1:] != (width,):
        got = "none" if context is None else f"shape {tuple(context.shape)}"
        raise InputError(f"{owner} needs a context of width {width}; got {got}.")
    return context


class Block(nn.Module):
    """Pre-activation residual block, h + W2 act(W1 act(h)), with dropout before W2 (Durkan et al. 2019, app. B.1)."""

    def __init__(self, width: int, activation: str, dropout: float) -> None:
        super().__init__()
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)
        nn.init.uniform_(self.second.weight, -1e-3, 1e-3)
        nn.init.uniform_(self.second.bias, -1e-3, 1e-3)
        self.act = make_activation(activation)
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor) -> Tensor:
        """``(*batch, width)`` to the same shape."""
        return h + self.second(self.dropout(replace(self.act, self.first(self.act(h)))))


@register("networks")
class MLP(nn.Module):
    """Multi-layer perceptron, plain or residual.

    Args:
        inputs: width of the input.
        outputs: width of the output.
        hidden: widths of the hidden layers; in a residual network the number of blocks and their equal width.
        residual: residual blocks instead of plain layers.
        activation: name of the activation.
        dropout: probability, after each hidden activation (inside the blocks of a residual network).
        input_bound: the network sees its input clamped to this range, so its output is bounded.
        output_gain: factor on the last layer's initial weights; its bias starts at 0.

    Raises:
        ConfigError: for impossible widths or an unknown activation.

    Example:
        >>> import torch
        >>> MLP(3, 2, hidden=(16,))(torch.zeros(5, 3)).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        hidden: tuple[int, ...] = (128, 128),
        *,
        residual: bool = False,
        activation: str = "relu",
        dropout: float = 0.0,
        input_bound: float | None = None,
        output_gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.inputs, self.outputs = check_integer("inputs", inputs), check_integer("outputs", outputs)
        self.hidden = check_widths("hidden", hidden, equal=residual)
        self.residual, self.activation, self.dropout = residual, activation, dropout
        self.input_bound, self.output_gain = input_bound, output_gain
        check_options(dropout, input_bound)
        layers: list[nn.Module] = []
        width = inputs
        if residual:
            layers.append(nn.Linear(inputs, self.hidden[0]))
            layers += [Block(size, activation, dropout) for size in self.hidden]
            width = self.hidden[-1]
        else:
            for size in self.hidden:
                layers += [nn.Linear(width, size), make_activation(activation)]
                if dropout:
                    layers.append(nn.Dropout(dropout))
                width = size
        last = nn.Linear(width, outputs)
        with torch.no_grad():
            last.weight.mul_(output_gain)
            last.bias.zero_()
        self.body = nn.Sequential(*layers)
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        """``(*batch, inputs)`` to ``(*batch, outputs)``."""
        return self.last(self.trunk(x))

    def trunk(self, x: Tensor) -> Tensor:
        """Everything before the last layer: ``(*batch, inputs)`` to ``(*batch, width)``."""
        if x.dtype is torch.float64:  # coordinates may be float64 with float32 weights
            x = x.to(self.last.weight.dtype)
        if self.input_bound is not None:
            x = bound_input(x, self.input_bound)
        for layer in self.body:  # a tuple of classes, since torch.compile of PyTorch 2.6 cannot read a union of them
            x = layer(x) if isinstance(layer, (nn.Linear, Block, nn.Dropout)) else replace(layer, x)
        return x
