"""Networks that summarize structured data in a few numbers: images and series, sets of independent rows, sequences."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from pushforward.errors import ConfigError, InputError
from pushforward.networks.activations import activation as make_activation
from pushforward.networks.mlp import MLP
from pushforward.numerics.checks import check_integer, check_widths, is_integer
from pushforward.registry import register

__all__ = ["ConvSummary", "RecurrentSummary", "SetSummary"]


def check_flat(x: Tensor, inputs: int, owner: str) -> None:
    """Refuse data that are not flat rows of the right width.

    Raises:
        InputError: naming the owner and its width.
    """
    if x.shape[-1:] != (inputs,):
        raise InputError(f"{owner} reads flat rows, (*batch, {inputs}); got {tuple(x.shape)}.")


@register("networks")
class ConvSummary(nn.Module):
    """Convolutions with stride 2, then a dense network: images (channels, height, width) or series (channels, length).

    Args:
        shape: of one datum, (channels, height, width) or (channels, length).
        outputs: number of summaries.
        channels: of the convolutions; each halves the resolution.
        hidden: widths of the dense layers.
        activation: name of the activation.

    Raises:
        ConfigError: for another shape, or sizes that are not possible.

    Example:
        >>> import torch
        >>> ConvSummary((1, 8, 8), 4)(torch.zeros(5, 64)).shape                 # rows are flat
        torch.Size([5, 4])
    """

    def __init__(
        self, shape: tuple[int, ...], outputs: int, channels: tuple[int, ...] = (16, 32), hidden: tuple[int, ...] = (64,),
        activation: str = "relu",
    ) -> None:  # fmt: skip
        super().__init__()
        if (
            not isinstance(shape, (tuple, list))
            or len(shape) not in (2, 3)
            or not all(is_integer(s) and s > 0 for s in shape)
        ):
            raise ConfigError(f"shape must be (channels, length) or (channels, height, width); got {shape!r}.")
        self.shape, self.outputs = tuple(shape), check_integer("outputs", outputs)
        self.channels, self.hidden = check_widths("channels", channels), check_widths("hidden", hidden)
        self.activation = activation
        self.inputs = math.prod(self.shape)
        conv = nn.Conv2d if len(shape) == 3 else nn.Conv1d
        widths = (self.shape[0], *self.channels)
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [conv(before, after, 3, stride=2, padding=1), make_activation(activation)]
        self.convolutions = nn.Sequential(*layers)
        sizes = list(self.shape[1:])
        for _ in self.channels:
            sizes = [(size + 1) // 2 for size in sizes]
        self.dense = MLP(widths[-1] * math.prod(sizes), self.outputs, self.hidden, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        """Flat data ``(*batch, inputs)`` to ``(*batch, outputs)``.

        Raises:
            InputError: for data of another width.
        """
        check_flat(x, self.inputs, type(self).__name__)
        x = x.to(next(self.dense.parameters()).dtype)
        rows = x.reshape(math.prod(x.shape[:-1]), *self.shape)
        return self.dense(self.convolutions(rows).flatten(1)).reshape(*x.shape[:-1], self.outputs)


@register("networks")
class SetSummary(nn.Module):
    """A function of a set of rows that does not depend on their order (Zaheer et al. 2017): the mean of a network of each row.

    It suits independent, identically distributed data. Mean and variance of the row's features pass through a second network.
    For data of varying number, fill up with rows of zeros, and give each row one more number, 1 for a row that is there.

    Args:
        rows: number of rows in a datum.
        width: numbers in a row.
        outputs: number of summaries.
        hidden: widths of the hidden layers of both networks.
        activation: name of the activation.

    Raises:
        ConfigError: for sizes that are not possible.

    Example:
        >>> import torch
        >>> summary = SetSummary(rows=10, width=2, outputs=3)
        >>> x = torch.randn(4, 10, 2)
        >>> torch.allclose(summary(x.reshape(4, 20)), summary(x.flip(1).reshape(4, 20)), atol=1e-5)
        True
    """

    def __init__(
        self, rows: int, width: int, outputs: int, hidden: tuple[int, ...] = (64, 64), activation: str = "relu"
    ) -> None:
        super().__init__()
        self.rows, self.width = check_integer("rows", rows), check_integer("width", width)
        self.outputs, self.hidden, self.activation = (
            check_integer("outputs", outputs),
            check_widths("hidden", hidden),
            activation,
        )
        self.inputs = self.rows * self.width
        if not self.hidden:
            raise ConfigError("hidden must have at least one width, which is that of the mean over the rows; got ().")
        features = self.hidden[-1]
        self.each = MLP(self.width, features, self.hidden, activation=activation)
        self.all = MLP(2 * features, self.outputs, self.hidden, activation=activation)

    @property
    def set_width(self) -> int:
        """Numbers in a row. :class:`~pushforward.inference.NPE` scales all rows of a datum alike, so that their order stays free."""
        return self.width

    def forward(self, x: Tensor) -> Tensor:
        """Flat data ``(*batch, inputs)`` to ``(*batch, outputs)``.

        Raises:
            InputError: for data of another width.
        """
        check_flat(x, self.inputs, type(self).__name__)
        features = self.each(x.reshape(*x.shape[:-1], self.rows, self.width))
        mean = features.mean(-2)
        spread = (features - mean.unsqueeze(-2)).square().mean(-2)
        return self.all(torch.cat((mean, torch.log1p(spread)), -1))


@register("networks")
class RecurrentSummary(nn.Module):
    """The last state of a gated recurrent network (Cho et al. 2014) that reads a sequence, through a dense layer.

    ``torch.compile`` does not support torch's recurrent layers.

    Args:
        steps: length of the sequence.
        width: numbers at each step.
        outputs: number of summaries.
        hidden: width of the state.
        layers: number of recurrent layers.

    Raises:
        ConfigError: for sizes that are not possible.

    Example:
        >>> import torch
        >>> RecurrentSummary(steps=12, width=2, outputs=3)(torch.zeros(5, 24)).shape
        torch.Size([5, 3])
    """

    def __init__(self, steps: int, width: int, outputs: int, hidden: int = 32, layers: int = 1) -> None:
        super().__init__()
        self.steps, self.width = check_integer("steps", steps), check_integer("width", width)
        self.outputs, self.hidden = check_integer("outputs", outputs), check_integer("hidden", hidden)
        self.layers = check_integer("layers", layers)
        self.inputs = self.steps * self.width
        self.recurrent = nn.GRU(self.width, self.hidden, self.layers, batch_first=True)
        self.last = nn.Linear(self.hidden, self.outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Flat data ``(*batch, inputs)`` to ``(*batch, outputs)``.

        Raises:
            InputError: for data of another width.
        """
        check_flat(x, self.inputs, type(self).__name__)
        x = x.to(self.last.weight.dtype)
        _, state = self.recurrent(x.reshape(math.prod(x.shape[:-1]), self.steps, self.width))
        return self.last(state[-1]).reshape(*x.shape[:-1], self.outputs)
