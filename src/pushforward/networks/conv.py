"""Convolutional conditioners: the plain network of Glow, and a residual network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pushforward.errors import ConfigError, InputError
from pushforward.kernels import conv_stack
from pushforward.networks.activations import activation as make_activation
from pushforward.networks.activations import has_hooks
from pushforward.networks.mlp import check_options
from pushforward.numerics import bound_input
from pushforward.numerics.checks import check_integer, check_widths
from pushforward.numerics.conversion import channels_last
from pushforward.registry import register

__all__ = ["ConvNet"]


class NormedConv2d(nn.Conv2d):
    """A convolution with weight normalization: direction and length of each kernel are separate parameters (Salimans and Kingma 2016)."""

    def __init__(self, inputs: int, outputs: int, kernel_size: int) -> None:
        super().__init__(inputs, outputs, kernel_size, padding=kernel_size // 2)
        self.gain = nn.Parameter(self._length().detach().clone())

    def forward(self, input: Tensor) -> Tensor:
        """``(rows, inputs, H, W)`` to ``(rows, outputs, H, W)``."""
        return self._conv_forward(input, self.weight * (self.gain / self._length()), self.bias)

    def _length(self) -> Tensor:
        return self.weight.flatten(1).norm(dim=1).clamp(min=1e-12)[:, None, None, None]


class PixelBatchNorm(nn.BatchNorm2d):
    """Batch normalization of channels. In training a single pixel has no variance, so it is normalized as in evaluation."""

    def forward(self, input: Tensor) -> Tensor:
        """``(rows, channels, H, W)`` to the same shape."""
        count = input.numel() // max(input.shape[1], 1)
        if self.training and count > 1:
            output = super().forward(input)
            if self.momentum == 1.0:  # these are all rows, so the variance is exact and not an estimate
                assert self.running_var is not None
                self.running_var.mul_((count - 1) / count)
            return output
        return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)


class ConvBlock(nn.Module):
    """Pre-activation residual block, h + W2 act(W1 act(h)) with 3 x 3 convolutions; normed, h + W2 act(n(W1 act(n(h))))."""

    def __init__(self, width: int, kernel_size: int, activation: str, dropout: float, normalize: bool = False) -> None:
        super().__init__()
        self.norms = nn.ModuleList([PixelBatchNorm(width), PixelBatchNorm(width)]) if normalize else None
        if normalize:
            self.first = NormedConv2d(width, width, kernel_size)
            self.second = NormedConv2d(width, width, kernel_size)
            with torch.no_grad():
                self.second.gain.fill_(1e-3)
        else:
            self.first = nn.Conv2d(width, width, kernel_size, padding=kernel_size // 2)
            self.second = nn.Conv2d(width, width, kernel_size, padding=kernel_size // 2)
            for parameter in self.second.parameters():
                nn.init.uniform_(parameter, -1e-3, 1e-3)
        self.act = make_activation(activation)
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor) -> Tensor:
        """``(rows, width, H, W)`` to the same shape."""
        if self.norms is None:
            return h + self.second(self.dropout(self.act(self.first(self.act(h)))))
        inner = self.first(self.act(self.norms[0](h)))
        return h + self.second(self.dropout(self.act(self.norms[1](inner))))


@register("networks")
class ConvNet(nn.Module):
    """Convolutional network whose output has the height and width of the input, with zero padding.

    Plain: k x k, then 1 x 1 for each further hidden width, then k x k (with two widths the 3-1-3 network of Glow,
    Kingma and Dhariwal 2018, sec. 3.3). Residual: k x k, pre-activation blocks of two k x k each, and a last k x k (after
    Real NVP, Dinh et al. 2016, sec. 4.1; optionally with its batch and weight normalization).

    Args:
        inputs: channels in.
        outputs: channels out.
        hidden: widths of the hidden layers; in a residual network the number of blocks and their equal width.
        residual: residual blocks instead of plain layers.
        normalize: batch normalization before each activation of the residual blocks, and weight normalization of their
            convolutions. In training the images of a batch affect each other; in evaluation they do not.
        kernel_size: odd k.
        activation: name of the activation.
        dropout: probability, after each hidden activation (inside the blocks of a residual network).
        input_bound: the network sees its input clamped to this range, so its output is bounded.
        output_gain: factor on the last layer's initial weights; its bias starts at 0. Glow starts at 0.

    Raises:
        ConfigError: for impossible widths or an unknown activation.

    Example:
        >>> import torch
        >>> ConvNet(3, 2, hidden=(16, 16))(torch.zeros(5, 3, 8, 8)).shape
        torch.Size([5, 2, 8, 8])
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        hidden: tuple[int, ...] = (64, 64),
        *,
        residual: bool = False,
        normalize: bool = False,
        kernel_size: int = 3,
        activation: str = "relu",
        dropout: float = 0.0,
        input_bound: float | None = None,
        output_gain: float = 0.0,
    ) -> None:
        super().__init__()
        self.inputs, self.outputs = check_integer("inputs", inputs), check_integer("outputs", outputs)
        self.hidden = check_widths("hidden", hidden, equal=residual)
        self.residual, self.normalize, self.activation, self.dropout = residual, normalize, activation, dropout
        if normalize and not residual:
            raise ConfigError("normalize=True normalizes residual blocks, so it needs residual=True.")
        self.input_bound, self.output_gain = input_bound, output_gain
        self.kernel_size = check_integer("kernel_size", kernel_size)
        check_options(dropout, input_bound)
        if kernel_size % 2 == 0:
            raise ConfigError(f"kernel_size must be odd; got {kernel_size}.")
        layers: list[nn.Module] = []
        width = inputs
        if residual:
            layers.append(nn.Conv2d(inputs, self.hidden[0], kernel_size, padding=kernel_size // 2))
            layers += [ConvBlock(size, kernel_size, activation, dropout, normalize) for size in self.hidden]
            layers.append(make_activation(activation))
            width = self.hidden[-1]
        else:
            for index, size in enumerate(self.hidden):
                kernel = 1 if index else kernel_size
                layers += [nn.Conv2d(width, size, kernel, padding=kernel // 2), make_activation(activation)]
                if dropout:
                    layers.append(nn.Dropout(dropout))
                width = size
        last = nn.Conv2d(width, outputs, kernel_size, padding=kernel_size // 2)
        with torch.no_grad():
            last.weight.mul_(output_gain)
            if last.bias is not None:
                last.bias.zero_()
        self.body = nn.Sequential(*layers)
        self.last = last

    @contextmanager
    def gathering(self) -> Iterator[None]:
        """In this block the first batch sets the statistics of batch normalization to its own; dropout is off."""
        norms = [part for part in self.modules() if isinstance(part, PixelBatchNorm)]
        before = [(part.training, part.momentum) for part in norms]
        for part in norms:
            part.training, part.momentum = True, 1.0
        active = [part for part in self.modules() if isinstance(part, nn.Dropout) and part.training]
        for part in active:
            part.training = False
        try:
            yield
        finally:
            for part, (training, momentum) in zip(norms, before, strict=True):
                part.training, part.momentum = training, momentum
            for part in active:
                part.training = True

    def forward(self, x: Tensor) -> Tensor:
        """``(*batch, inputs, H, W)`` to ``(*batch, outputs, H, W)``.

        Raises:
            InputError: for another number of channels.
        """
        if x.dim() < 3 or x.shape[-3] != self.inputs:
            raise InputError(
                f"ConvNet reads images of shape (*batch, {self.inputs}, height, width); got {tuple(x.shape)}."
            )
        height, width = x.shape[-2:]
        rows = x.reshape(-1, self.inputs, height, width).to(self.last.weight.dtype)  # coordinates may be float64
        layers = self._stack()
        if layers is not None:
            biases = [part.bias for part in layers if part.bias is not None]
            out = conv_stack(rows, [part.weight for part in layers], biases, self.input_bound)
            return out.reshape(*x.shape[:-3], self.outputs, height, width)
        if self.input_bound is not None:
            rows = bound_input(rows, self.input_bound)
        rows = channels_last(rows)  # up to 3 times faster, and never slower
        return self.last(self.body(rows)).reshape(*x.shape[:-3], self.outputs, height, width)

    def _stack(self) -> list[nn.Conv2d] | None:
        """The layers, if they are convolutions with ReLU between them and nothing else, without hooks; else None."""
        if self.residual or self.activation != "relu" or not self.hidden or (self.dropout and self.training):
            return None
        if any(has_hooks(part) for part in (self.body, *self.body, self.last)):
            return None
        layers = [part for part in (*self.body, self.last) if not isinstance(part, (nn.ReLU, nn.Dropout))]
        for part in layers:
            if type(part) is not nn.Conv2d or part.bias is None:
                return None
        return layers  # pyright: ignore[reportReturnType]
