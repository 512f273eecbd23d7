"""A feed-forward network at a point: its value, and its Jacobian as an explicit product of matrices."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pushforward.errors import ConfigError
from pushforward.numerics.tracing import is_compiling

__all__ = ["SLOPED", "Linearized", "activate", "feed_forward", "linearize", "trace_form"]

SLOPED = ("elu", "lipswish", "silu", "softplus", "tanh")
"""Smooth activations with explicit derivatives; elu, lipswish, softplus and tanh are 1-Lipschitz."""


_ROWS = 1024
"""Rows times inputs of one pass through the layers (measured at widths of 64 to 256)."""


class Linearized(NamedTuple):
    """y = W_n s(... s(W_1 x)) at a point; J = dy/dx = W_n diag(d_(n-1)) ... diag(d_1) W_1 diag(inside).

    A product with J costs one pass.

    Attributes:
        value: y, ``(*batch, outputs)``.
        weights: W_1, ..., W_n, the columns of W_1 for x alone.
        slopes: d_1, ..., d_(n-1), derivatives of the activations, ``(*batch, width)``.
        inside: 0 where x was clamped and 1 elsewhere, ``(*batch, inputs)``; None if the network does not clamp.
        form: the result of :func:`trace_form`, if the trace is needed often.
    """

    value: Tensor
    weights: list[Tensor]
    slopes: list[Tensor]
    inside: Tensor | None = None
    form: Tensor | None = None

    def jacobian(self) -> Tensor:
        """J, ``(*batch, outputs, inputs)``, layer by layer.

        It takes a few columns at a time, so that intermediate results stay in the processor's cache: twice as fast.
        """
        columns = self.weights[0].mT.contiguous()  # row i belongs to input i
        if not self.slopes:
            result = self.weights[0].expand(*self.value.shape, columns.shape[0])
        else:
            compiling = is_compiling()  # the number of rows is then unknown
            count = len(columns) if compiling else max(_ROWS // max(self.value[..., 0].numel(), 1), 1)
            result = torch.cat([self._columns(part) for part in columns.split(count)]).movedim(0, -1)
        return result if self.inside is None else result * self.inside.unsqueeze(-2)

    def _columns(self, part: Tensor) -> Tensor:
        """The columns of J that belong to these rows of W_1^T, ``(count, *batch, outputs)``."""
        part = part.reshape(len(part), *(1,) * (self.value.dim() - 1), -1) * self.slopes[0]
        for weight, slope in zip(self.weights[1:-1], self.slopes[1:], strict=True):
            part = F.linear(part, weight) * slope
        return F.linear(part, self.weights[-1])

    def vjp(self, w: Tensor) -> Tensor:
        """w J for row vectors w, ``(*more, *batch, outputs)`` to ``(*more, *batch, inputs)``."""
        for weight, slope in zip(reversed(self.weights[1:]), reversed(self.slopes), strict=True):
            w = (w @ weight) * slope
        w = w @ self.weights[0]
        return w if self.inside is None else w * self.inside

    def jvp(self, v: Tensor) -> Tensor:
        """J v, ``(*more, *batch, inputs)`` to ``(*more, *batch, outputs)``."""
        if self.inside is not None:
            v = v * self.inside
        for weight, slope in zip(self.weights[:-1], self.slopes, strict=True):
            v = F.linear(v, weight) * slope
        return F.linear(v, self.weights[-1])

    def trace(self) -> Tensor:
        """Trace of J, shape ``batch``; about as expensive as one product if :func:`trace_form` has a result."""
        form = trace_form(self.weights) if self.form is None else self.form
        if self.inside is not None or form is None:
            return self.jacobian().diagonal(dim1=-2, dim2=-1).sum(-1)
        if form.dim() == 0:
            return form.expand(self.value.shape[:-1])
        if form.dim() == 1:
            return self.slopes[0] @ form
        return (F.linear(self.slopes[0], form) * self.slopes[1]).sum(-1)


def trace_form(weights: list[Tensor]) -> Tensor | None:
    """Coefficients of the trace of J as a form in the slopes; None for more than two hidden layers.

    tr(W_3 diag(d_2) W_2 diag(d_1) W_1) = d_2 . (W_2 * (W_1 W_3)^T) d_1, with * elementwise, is bilinear. For one hidden layer
    the trace is linear in d_1, and for none it is a constant.
    """
    if len(weights) > 3:
        return None
    if len(weights) == 1:
        return weights[0].diagonal().sum()
    first, last = weights[0], weights[-1]
    return (first * last.mT).sum(-1) if len(weights) == 2 else weights[1] * (first @ last).mT


def activate(name: str, x: Tensor, sharpness: Tensor | None = None) -> Tensor:
    """The activation of a name; ``sharpness`` is beta > 0 of LipSwish.

    Raises:
        ConfigError: for a name without an explicit derivative.
    """
    if name == "tanh":
        return torch.tanh(x)
    if name == "softplus":
        return F.softplus(x)
    if name == "elu":
        return F.elu(x)
    if name == "silu":
        return F.silu(x)
    if name == "lipswish":
        return x * torch.sigmoid(x if sharpness is None else sharpness * x) / 1.1
    raise ConfigError(f"activation must be one of {', '.join(SLOPED)}; got {name!r}.")


def activate_with_slope(name: str, x: Tensor, sharpness: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The activation and its derivative."""
    if name == "tanh":
        y = torch.tanh(x)
        return y, 1 - y * y
    if name == "softplus":
        return F.softplus(x), torch.sigmoid(x)
    if name == "elu":
        y = F.elu(x)
        return y, 1 + y.clamp(max=0.0)
    scaled = x if sharpness is None else sharpness * x
    gate = torch.sigmoid(scaled)
    y, slope = x * gate, gate * (1 + scaled * (1 - gate))
    return (y, slope) if name == "silu" else (y / 1.1, slope / 1.1)


def feed_forward(
    name: str, inside: Tensor, layers: list[tuple[Tensor, Tensor]], sharpness: list[Tensor | None]
) -> Tensor:
    """All layers after the first linear one.

    Args:
        name: of the activation.
        inside: output of the first linear layer, ``(*batch, width)``.
        layers: weight and bias of the other layers.
        sharpness: of each activation, for LipSwish.
    """
    for (weight, bias), beta in zip(layers, sharpness, strict=True):
        inside = F.linear(activate(name, inside, beta), weight, bias)
    return inside


def linearize(
    name: str, inside: Tensor, layers: list[tuple[Tensor, Tensor]], sharpness: list[Tensor | None]
) -> tuple[Tensor, list[Tensor]]:
    """As :func:`feed_forward`, with the slopes of the activations."""
    slopes = []
    for (weight, bias), beta in zip(layers, sharpness, strict=True):
        hidden, slope = activate_with_slope(name, inside, beta)
        slopes.append(slope)
        inside = F.linear(hidden, weight, bias)
    return inside, slopes
