"""Block autoregressive transform: one monotone network in place of a conditioner and a transformer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pushforward.errors import ConfigError
from pushforward.networks.blocks import BlockLayer, BlockNetwork
from pushforward.numerics import Noise, full_precision, log_sum, monotone_root, soft_clamp, sum_event
from pushforward.numerics.checks import check_integer, check_widths
from pushforward.registry import register
from pushforward.transforms.base import Step, Transform, check_context
from pushforward.transforms.validation import vector_width

__all__ = ["BlockAutoregressive"]

_MAX_LOGIT = 4.0


@register("transforms")
class BlockAutoregressive(Transform):
    """z_i = a_i x_i + (1 - a_i) net_i(x_<=i), with net_i increasing in x_i (De Cao, Aziz, Titov 2019, eq. 7-9, 11).

    The network's layers are block-triangular, with tanh between them. The blocks on the diagonal are positive (exponentials)
    and those below it are free. The diagonal of its Jacobian is a product of the positive blocks, computed in logarithms. log abs det dz/dx = sum log dz_i/dx_i.

    Its image is all reals, so the density has mass 1 with any base distribution: a_i = sigmoid(g_i) lies in (0.018, 0.982),
    and net is bounded (its last layer reads values of tanh), so z_i goes to -inf and inf with x_i. Slopes are at least a_i,
    and at most a_i + (1 - a_i) times the product of the blocks, whose rows have bounded length.

    At the start the z of a standard normal x have mean 0 and variance 1, so a stack of these layers begins near standardized data.

    Encoding takes one pass. Decoding solves one equation after the other, one for each coordinate, by bracketed root finding.
    Each of its steps evaluates only the blocks of that coordinate.

    Args:
        features: number of coordinates D.
        hidden: number of units *for each coordinate* in each hidden layer, at least one layer: (8, 8) makes layers of 8 D
            units.
        context: width of the context, which the first layer reads.

    Raises:
        ConfigError: if the event is not a vector, or there is no hidden layer.

    Example:
        >>> import torch
        >>> layer = BlockAutoregressive(3, hidden=(8,))
        >>> x = torch.randn(5, 3)
        >>> torch.allclose(layer.decode(layer.encode(x).z), x, atol=1e-4)
        True
    """

    supports_float64 = False

    def __init__(self, features: int, *, hidden: tuple[int, ...] = (8, 8), context: int = 0) -> None:
        super().__init__(features)
        features = vector_width(features, "BlockAutoregressive")
        self.features, self.hidden = features, check_widths("hidden", hidden)
        self.context = check_integer("context", context, 0)
        if not self.hidden:
            raise ConfigError("hidden must have at least one layer, such as hidden=(8,); got ().")
        self.network = BlockNetwork(features, self.hidden, context)
        self.gate = nn.Parameter(torch.zeros(features))
        self.autoregressive_order = tuple(range(features))
        self.decode_passes = features
        self._normalize_start()

    @torch.no_grad()
    def _normalize_start(self) -> None:
        """Scale and shift the last layer so that the z of 512 normal rows have mean 0 and variance 1."""
        x = torch.randn(512, self.features, device="cpu", generator=torch.Generator().manual_seed(0)).to(self.gate)
        last = self.network.layers[-1]
        assert isinstance(last, BlockLayer)
        y = self.network(x, x.new_zeros(len(x), self.context) if self.context else None)[0] - last.bias.squeeze(-1)
        mean = y.mean(0)
        x, y = x - x.mean(0), y - mean
        gate, rest = torch.sigmoid(self.gate), torch.sigmoid(-self.gate)
        # The factor k of y that solves var(gate x + rest k y) = 1; gate < 1, so one solution is positive.
        a, b, c = (
            (rest * y).square().mean(0), (gate * rest * x * y).mean(0), 1 - (gate * x).square().mean(0).clamp(max=0.9)
        )  # fmt: skip
        factor = c / (b + (b.square() + a * c).sqrt())
        last.rescale(factor, -mean * factor)

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """Data to noise in one pass."""
        z, slopes = self.encode_terms(x, context)
        return Step(z, sum_event(slopes, 1))

    def encode_terms(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> tuple[Tensor, Tensor]:
        """Data to noise, with log dz_i/dx_i, both ``(*batch, D)``."""
        check_context(context, self.context, "BlockAutoregressive")
        with full_precision(x):
            y, log_slope = self.network(x, context)
            logit = soft_clamp(self.gate, _MAX_LOGIT)
            gate, rest = torch.sigmoid(logit), torch.sigmoid(-logit)
            return gate * x + rest * y, log_sum(F.logsigmoid(logit), F.logsigmoid(-logit) + log_slope)

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Noise to data, coordinate by coordinate."""
        check_context(context, self.context, "BlockAutoregressive")
        with full_precision(z):
            layers = self.network.parts(context)
            # Bound on the last layer, whose inputs are at most 1.
            bound = layers[-1][0].detach().abs().sum((-1, -2, -3)) + layers[-1][2].detach().abs().squeeze(-1)
            logit = soft_clamp(self.gate, _MAX_LOGIT)
            # Inputs of each layer from the coordinates that are known: x, then values of tanh.
            inputs = [z.new_zeros(*z.shape[:-1], 0, weight.shape[-1]) for weight, _, _ in layers]
            solved: list[Tensor] = []
            for i in range(self.features):
                column = Column(i, layers, inputs, logit[i])
                x = column.solve(z[..., i], bound[i])
                inputs = [
                    torch.cat((h, new.unsqueeze(-2)), -2) for h, new in zip(inputs, column.inputs(x), strict=True)
                ]
                solved.append(x)
            return torch.stack(solved, -1)


class Column:
    """z_i as a function of x_i, given the coordinates before it."""

    def __init__(
        self, i: int, layers: list[tuple[Tensor, Tensor, Tensor]], inputs: list[Tensor], logit: Tensor
    ) -> None:
        self.gate, self.rest = torch.sigmoid(logit), torch.sigmoid(-logit)
        self.blocks = [weight[i, :, i] for weight, _, _ in layers]
        self.shifts = [
            h.flatten(-2) @ weight[i, :, :i].flatten(1).mT + bias[..., i, :]
            for (weight, _, bias), h in zip(layers, inputs, strict=True)
        ]

    def inputs(self, x: Tensor) -> list[Tensor]:
        """Inputs of each layer from this coordinate, ``(*batch, units)``."""
        result = [x.unsqueeze(-1)]
        for block, shift in zip(self.blocks[:-1], self.shifts[:-1], strict=True):
            result.append(torch.tanh(result[-1] @ block.mT + shift))
        return result

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z_i and dz_i/dx_i."""
        h, slope = x.unsqueeze(-1), torch.ones_like(x).unsqueeze(-1)
        for index, (block, shift) in enumerate(zip(self.blocks, self.shifts, strict=True)):
            if index:
                h = torch.tanh(h)
                slope = slope * (1 - h.square())
            h, slope = h @ block.mT + shift, slope @ block.mT
        return self.gate * x + self.rest * h.squeeze(-1), self.gate + self.rest * slope.squeeze(-1)

    def solve(self, z: Tensor, bound: Tensor) -> Tensor:
        """x_i with this z_i, in the bracket that follows from the bound on the network."""
        center, width = z.detach() / self.gate.detach(), (self.rest / self.gate).detach() * bound
        return monotone_root(self, z, center - width, center + width, doublings=0)
