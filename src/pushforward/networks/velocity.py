"""A multi-layer perceptron v(t, x; context) with its Jacobian in x: the dynamics of a continuous flow."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pushforward.networks.linearized import SLOPED, Linearized, linearize, trace_form
from pushforward.networks.mlp import required_context
from pushforward.numerics import bound_input
from pushforward.numerics.checks import check_choice, check_integer, check_widths

__all__ = ["VelocityMLP"]


class Prepared(NamedTuple):
    """The parts of the network that do not change during the solution of an equation."""

    weights: list[Tensor]
    form: Tensor | None
    shift: Tensor | None


class VelocityMLP(nn.Module):
    """v(t, x; context), ``(*batch, D)``: smooth in x and t, with an explicit J = dv/dx (:class:`Linearized`).

    Args:
        features: D.
        hidden: widths of the hidden layers. With one or two the exact trace of J costs about as much as v.
        activation: "tanh" (v is bounded), "softplus", "silu", "elu" or "lipswish".
        context: width of the context.
        output_gain: factor on the last layer's initial weights; a small one starts near v = 0.

    Raises:
        ConfigError: for impossible widths, or an activation without an explicit derivative.

    Example:
        >>> import torch
        >>> VelocityMLP(3, (16,))(torch.tensor(0.5), torch.zeros(5, 3)).shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        features: int,
        hidden: tuple[int, ...] = (128, 128),
        *,
        activation: str = "tanh",
        context: int = 0,
        output_gain: float = 0.1,
    ) -> None:
        super().__init__()
        self.features, self.hidden = check_integer("features", features), check_widths("hidden", hidden)
        self.context = check_integer("context", context, 0)
        check_choice("activation", activation, SLOPED)
        self.activation, self.output_gain = activation, output_gain
        widths = [features, *self.hidden, features]
        self.linears = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        self.clock = nn.Linear(1, widths[1], bias=False)
        self.read = nn.Linear(context, widths[1], bias=False) if context else None
        with torch.no_grad():
            last = self.linears[-1]
            assert isinstance(last, nn.Linear)
            last.weight.mul_(output_gain)
            last.bias.zero_()

    def forward(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """v at times t, a number or ``(*batch, 1)``."""
        return self.at(t, x, self.prepare(context, trace=False)).value

    def prepare(self, context: Tensor | None = None, *, trace: bool = True) -> Prepared:
        """The parts that :meth:`at`, and the trace of its Jacobian, need at every time.

        Raises:
            InputError: if the context is missing or has the wrong width.
        """
        weights: list[Tensor] = [linear.weight for linear in self.linears]  # pyright: ignore[reportAssignmentType]
        shift = None
        if self.read is not None:
            shift = self.read(bound_input(required_context(context, self.context, "VelocityMLP"), 10.0))
        return Prepared(weights, trace_form(weights) if trace else None, shift)

    def at(self, t: Tensor | float, x: Tensor, prepared: Prepared) -> Linearized:
        """v and its Jacobian at x and t; t is a number or ``(*batch, 1)``."""
        inside = self.linears[0](x) + t * self.clock.weight[:, 0]
        if prepared.shift is not None:
            inside = inside + prepared.shift
        layers = [(linear.weight, linear.bias) for linear in self.linears[1:]]
        value, slopes = linearize(self.activation, inside, layers, [None] * len(self.hidden))  # pyright: ignore[reportArgumentType]
        return Linearized(value, prepared.weights, slopes, None, prepared.form)
