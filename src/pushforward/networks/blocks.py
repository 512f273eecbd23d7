"""A network of block-triangular layers: output i increases with input i and does not depend on later inputs."""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pushforward.numerics import bound_input, soft_clamp
from pushforward.numerics.checks import check_integer

__all__ = ["BlockLayer", "BlockNetwork"]

_LIMIT = 5.0
"""Smooth bound on the logarithms of the row lengths, and of the positive weights before rows are scaled."""


class BlockLayer(nn.Module):
    """One layer, a D x D grid of blocks: zero above the diagonal, positive on it, free below (De Cao et al. 2019, eq. 7).

    Weights on the diagonal are exp(raw). Then each row is scaled to the length exp(gain) (eq. 9). Both exponents are bounded.

    Args:
        features: D.
        inputs: number of units of each coordinate before the layer.
        outputs: number of units of each coordinate after the layer.
    """

    def __init__(self, features: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.features, self.inputs, self.outputs = features, inputs, outputs
        bound = 1 / math.sqrt(features * inputs)
        self.raw = nn.Parameter(torch.empty(features, outputs, features, inputs).uniform_(-bound, bound))
        self.gain = nn.Parameter(torch.empty(features, outputs).uniform_(-1, 1))
        self.bias = nn.Parameter(torch.empty(features, outputs).uniform_(-1, 1))

    def weights(self) -> tuple[Tensor, Tensor]:
        """The layer's matrix as blocks ``(D, outputs, D, inputs)``, and the logarithm of those on the diagonal."""
        grid = torch.arange(self.features, device=self.raw.device)
        below = (grid[:, None] > grid)[:, None, :, None]
        on = (grid[:, None] == grid)[:, None, :, None]
        log_diagonal = soft_clamp(self.raw.diagonal(dim1=0, dim2=2).movedim(-1, 0), _LIMIT)  # (D, outputs, inputs)
        weight = torch.where(below, self.raw, 0.0) + torch.where(on, log_diagonal.exp().unsqueeze(2), 0.0)
        log_scale = soft_clamp(self.gain, _LIMIT) - 0.5 * weight.square().sum((-1, -2)).log()
        return weight * log_scale.exp()[..., None, None], log_diagonal + log_scale.unsqueeze(-1)

    @torch.no_grad()
    def rescale(self, factor: Tensor, bias: Tensor) -> None:
        """Multiply the weights of each coordinate's outputs by a factor ``(D,)``, as far as the bound on them allows, and set the bias ``(D,)``."""
        gain = soft_clamp(self.gain, _LIMIT) + factor.log().unsqueeze(-1)
        self.gain.copy_(_LIMIT * torch.atanh((gain / _LIMIT).clamp(-0.99, 0.99)))
        self.bias.copy_(bias.unsqueeze(-1).expand_as(self.bias))


class BlockNetwork(nn.Module):
    """Block layers with tanh between them. The outputs are bounded, as the inputs of the last layer are in (-1, 1).

    Args:
        features: D.
        hidden: number of units of each coordinate in each hidden layer; at least one layer.
        context: width of a context that is added to the first hidden layer.
        input_bound: the context is clamped to [-input_bound, input_bound].
    """

    def __init__(self, features: int, hidden: tuple[int, ...], context: int = 0, input_bound: float = 10.0) -> None:
        super().__init__()
        self.features, self.context, self.input_bound = features, check_integer("context", context, 0), input_bound
        sizes = (1, *hidden, 1)
        self.layers = nn.ModuleList(BlockLayer(features, a, b) for a, b in itertools.pairwise(sizes))
        self.context_in = nn.Linear(context, features * hidden[0], bias=False) if context else None

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``(*batch, D)`` to y and log dy_i/dx_i, both ``(*batch, D)``."""
        h, log_slope = x.unsqueeze(-1), torch.zeros_like(x).unsqueeze(-1)
        for index, (weight, log_diagonal, bias) in enumerate(self.parts(context)):
            if index:
                log_slope = log_slope + log_tanh_slope(h)
                h = torch.tanh(h)
            h = (h.flatten(-2) @ weight.flatten(2).flatten(0, 1).mT).unflatten(-1, bias.shape[-2:]) + bias
            log_slope = log_matmul(log_diagonal, log_slope)
        return h.squeeze(-1), log_slope.squeeze(-1)

    def parts(self, context: Tensor | None) -> list[tuple[Tensor, Tensor, Tensor]]:
        """For each layer: the weights as blocks, the logarithms of the diagonal ones, and the bias plus the context's term."""
        result = []
        for layer in self.layers:
            assert isinstance(layer, BlockLayer)
            bias: Tensor = layer.bias
            if self.context_in is not None and not result:
                assert context is not None
                bias = bias + self.context_in(bound_input(context, self.input_bound)).unflatten(-1, bias.shape)
            result.append((*layer.weights(), bias))
        return result


def log_tanh_slope(x: Tensor) -> Tensor:
    """log(1 - tanh(x)^2), also where tanh(x) rounds to 1."""
    return 2 * (math.log(2) - x - F.softplus(-2 * x))


def log_matmul(log_weight: Tensor, log_slope: Tensor) -> Tensor:
    """log of (exp(log_weight) exp(log_slope)) for each coordinate: ``(D, b, a)`` and ``(*batch, D, a)`` to ``(*batch, D, b)``."""
    top = log_slope.detach().amax(-1, keepdim=True)
    return top + (log_weight.exp() @ (log_slope - top).exp().unsqueeze(-1)).squeeze(-1).log()
