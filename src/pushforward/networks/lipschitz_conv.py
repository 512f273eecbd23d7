"""A convolutional network whose Lipschitz constant has a guaranteed bound, and its Jacobian at a point."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pushforward.errors import ConfigError, InputError
from pushforward.networks.linearized import activate, activate_with_slope
from pushforward.networks.lipschitz import CONTRACTIVE, log_largest_eigenvalue, spectral_bound
from pushforward.networks.mlp import check_options, required_context
from pushforward.numerics import bound_input
from pushforward.numerics.checks import check_choice, check_integer, check_positive, check_widths, is_integer

__all__ = ["LinearizedConv", "LipschitzConvNet", "convolution_bound"]

Layers = list[tuple[Tensor, Tensor]]


def convolution_bound(weight: Tensor, height: int, width: int, squarings: int = 6) -> Tensor:
    """An upper bound on the norm of a convolution with zeros around the image, differentiable.

    A zero-padded k x k convolution of an H x W image is a periodic convolution of the image extended by k // 2 zeros in both
    directions, cropped afterwards; extending and cropping make no vector longer. The singular values of the periodic
    convolution are those of its symbols W(theta), one matrix for each frequency (Sedghi et al. 2019, arXiv 1805.10408). Each
    symbol is bounded by Gram iteration as in :func:`~pushforward.networks.lipschitz.spectral_bound`. The Gram matrices
    W(theta) W(theta)^H are Fourier sums of the kernel's autocorrelations, so their size is the smaller number of channels.

    Args:
        weight: ``(outputs, inputs, k, k)`` with odd k.
        height: H.
        width: W.
        squarings: of the Gram iteration; with 6 the bound is at most 2 % too large at 48 channels.

    Returns:
        The bound, a scalar.

    Example:
        >>> import torch
        >>> blur = torch.full((1, 1, 3, 3), 1 / 9)
        >>> 0.99 < convolution_bound(blur, 20, 20).item() <= 1.001
        True
    """
    kernel = weight.shape[-1]
    if kernel == 1:
        return spectral_bound(weight.flatten(1), squarings)
    unit = weight.detach().abs().amax().clamp(min=torch.finfo(weight.dtype).tiny)
    weight = weight / unit
    weight = weight if weight.shape[0] <= weight.shape[1] else weight.transpose(0, 1)
    taps = F.conv2d(weight, weight, padding=kernel - 1).flatten(2)  # autocorrelations, (c, c, (2 k - 1)^2)
    # Conjugate frequencies have equal singular values, so half of them suffice.
    rows, columns = height + kernel // 2, width + kernel // 2
    offset = torch.arange(1 - kernel, kernel, device=weight.device, dtype=weight.dtype)
    down = torch.arange(rows, device=weight.device, dtype=weight.dtype) * (2 * math.pi / rows)
    along = torch.arange(columns // 2 + 1, device=weight.device, dtype=weight.dtype) * (2 * math.pi / columns)
    phase = (down[:, None, None, None] * offset[:, None] + along[:, None, None] * offset).flatten(2).flatten(0, 1)
    real, imaginary = torch.einsum("abt,ft->fab", taps, phase.cos()), torch.einsum("abt,ft->fab", taps, phase.sin())
    # A complex Hermitian matrix as a real symmetric one of twice the size, which has each eigenvalue twice.
    gram = torch.cat((torch.cat((real, -imaginary), -1), torch.cat((imaginary, real), -1)), -2)
    gram = (gram + gram.mT) / 2  # symmetric in spite of rounding
    return unit * torch.exp(0.5 * log_largest_eigenvalue(gram, squarings, copies=2).amax())


class LinearizedConv(NamedTuple):
    """y = W_n s(... s(W_1 x)) at a point, where the W are zero-padded convolutions; J = dy/dx.

    Attributes:
        value: y, ``(*batch, outputs, H, W)``.
        weights: kernels W_1, ..., W_n.
        slopes: derivatives of the activations, ``(*batch, channels, H, W)``.
        inside: 0 where x was clamped and 1 elsewhere, ``(*batch, inputs, H, W)``; None if the network does not clamp.
    """

    value: Tensor
    weights: list[Tensor]
    slopes: list[Tensor]
    inside: Tensor | None = None

    def vjp(self, w: Tensor) -> Tensor:
        """w J, ``(*more, *batch, outputs, H, W)`` to ``(*more, *batch, inputs, H, W)``."""
        for weight, slope in zip(reversed(self.weights[1:]), reversed(self.slopes), strict=True):
            w = _transposed(w, weight) * slope
        w = _transposed(w, self.weights[0])
        return w if self.inside is None else w * self.inside

    def jvp(self, v: Tensor) -> Tensor:
        """J v, ``(*more, *batch, inputs, H, W)`` to ``(*more, *batch, outputs, H, W)``."""
        if self.inside is not None:
            v = v * self.inside
        for weight, slope in zip(self.weights[:-1], self.slopes, strict=True):
            v = _convolved(v, weight) * slope
        return _convolved(v, self.weights[-1])

    def jacobian(self) -> Tensor:
        """J as a matrix of flattened images, ``(*batch, outputs H W, inputs H W)``.

        A pixel affects only outputs within the receptive radius r, so pixels at distance 2 r + 1 share a pass: for 3-1-3
        convolutions this takes 25 passes for each channel, not H W.
        """
        batch, (channels, height, width) = self.value.shape[:-3], (self.weights[0].shape[1], *self.value.shape[-2:])
        reach = sum(weight.shape[-1] // 2 for weight in self.weights)
        device = self.value.device
        positions = [torch.arange(size, device=device) for size in (height, width)]
        turn = [index % (2 * reach + 1) for index in positions]
        count = [min(size, 2 * reach + 1) for size in (height, width)]
        first, second = (
            torch.arange(size, device=device)[:, None] == index for size, index in zip(count, turn, strict=True)
        )  # the rows and columns of the image that each pass perturbs
        board = first[:, None, :, None] & second[None, :, None, :]
        ones = torch.eye(channels, device=device)[:, None, None, :, None, None] * board[:, :, None]
        moved = ones.to(self.value.dtype).reshape(-1, *(1,) * len(batch), channels, height, width)
        passes = self.jvp(moved.expand(-1, *batch, -1, -1, -1))
        passes = passes.reshape(channels, *count, *passes.shape[1:])
        columns = passes.index_select(1, turn[0]).index_select(2, turn[1])  # (inputs, H, W, *batch, outputs, H, W)
        near = [(index[:, None] - index[None, :]).abs() <= reach for index in positions]
        near = near[0][:, None, :, None] & near[1][None, :, None, :]
        columns = columns * near.reshape(1, height, width, *(1,) * (len(batch) + 1), height, width)
        return columns.flatten(-3).flatten(0, 2).movedim(0, -1)


class LipschitzConvNet(nn.Module):
    """g(x; context) on images with |g(x) - g(x')| <= coefficient |x - x'| in the Euclidean norm, for any weights.

    k x k, then 1 x 1 for each further hidden width, then k x k, with zero padding (the 3-1-3 networks of
    Behrmann et al. 2019 and Chen et al. 2019). Each of its n convolutions is scaled to W min(1, c / s(W)) with
    c = coefficient^(1/n) and s an upper bound of its norm (:func:`convolution_bound`), and activations are 1-Lipschitz.
    So the bound always holds: in training, in evaluation and after loading.

    Args:
        shape: (channels, height, width) of x and of g.
        hidden: widths of the hidden layers; () is one convolution.
        kernel_size: odd k.
        coefficient: the bound.
        activation: "lipswish", "elu", "softplus" or "tanh", as in :class:`~pushforward.networks.LipschitzMLP`.
        context: width of the context, which enters the first layer at every pixel by a separate matrix.
        input_bound: x and the context are clamped to [-input_bound, input_bound] first, which is 1-Lipschitz; g is then bounded.

    Raises:
        ConfigError: for impossible sizes, an activation that is not 1-Lipschitz, or a coefficient that is not positive.

    Example:
        >>> import torch
        >>> network = LipschitzConvNet((2, 6, 6), (8, 8), coefficient=0.5)
        >>> a, b = torch.randn(2, 50, 2, 6, 6)
        >>> change = (network(a) - network(b)).flatten(1).norm(dim=1)
        >>> bool((change <= 0.5 * (a - b).flatten(1).norm(dim=1)).all())
        True
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        hidden: tuple[int, ...] = (64, 64),
        *,
        kernel_size: int = 3,
        coefficient: float = 0.9,
        activation: str = "lipswish",
        context: int = 0,
        input_bound: float | None = 10.0,
    ) -> None:
        super().__init__()
        if not isinstance(shape, (tuple, list)) or len(shape) != 3 or not all(is_integer(s) and s > 0 for s in shape):
            raise ConfigError(f"shape must be (channels, height, width); got {shape!r}.")
        self.shape = (shape[0], shape[1], shape[2])
        self.hidden, self.context = check_widths("hidden", hidden), check_integer("context", context, 0)
        self.kernel_size = check_integer("kernel_size", kernel_size)
        check_options(0.0, input_bound)
        if kernel_size % 2 == 0:
            raise ConfigError(f"kernel_size must be odd; got {kernel_size}.")
        check_choice("activation", activation, CONTRACTIVE)
        check_positive("coefficient", coefficient)
        self.coefficient, self.activation, self.input_bound = coefficient, activation, input_bound
        widths = [shape[0], *self.hidden, shape[0]]
        last = len(self.hidden)
        sizes = [kernel_size if index in (0, last) else 1 for index in range(last + 1)]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(widths[index], widths[index + 1], size, padding=size // 2) for index, size in enumerate(sizes)
        )
        self.read = nn.Linear(context, widths[1], bias=False) if context else None
        swish = activation == "lipswish" and self.hidden
        self.raw_sharpness = nn.Parameter(torch.full((len(self.hidden),), 2.0)) if swish else None

    def layers(self) -> Layers:
        """Scaled kernels, and biases. Compute them once if the network is called several times."""
        limit = self.coefficient ** (1 / len(self.convolutions))
        result = []
        for convolution in self.convolutions:
            weight: Tensor = convolution.weight  # pyright: ignore[reportAssignmentType]
            size = convolution_bound(weight, self.shape[1], self.shape[2])
            result.append((weight * (limit / size.clamp(min=limit)), convolution.bias))
        return result

    def forward(self, x: Tensor, context: Tensor | None = None, layers: Layers | None = None) -> Tensor:
        """``(*batch, channels, H, W)`` to the same shape.

        Raises:
            InputError: for images of another shape, for which the bound would be another one, or if the context is missing or
                has the wrong width.
        """
        layers = self.layers() if layers is None else layers
        out = self._first(x, context, layers)
        for (weight, bias), beta in zip(layers[1:], self._sharpness(), strict=True):
            out = _convolved(activate(self.activation, out, beta), weight, bias)
        return out

    def at(self, x: Tensor, context: Tensor | None = None, layers: Layers | None = None) -> LinearizedConv:
        """The network and its Jacobian at x."""
        layers = self.layers() if layers is None else layers
        out, slopes = self._first(x, context, layers), []
        for (weight, bias), beta in zip(layers[1:], self._sharpness(), strict=True):
            out, slope = activate_with_slope(self.activation, out, beta)
            slopes.append(slope)
            out = _convolved(out, weight, bias)
        inside = None if self.input_bound is None else (x.abs() <= self.input_bound).to(x.dtype)
        return LinearizedConv(out, [weight for weight, _ in layers], slopes, inside)

    def _first(self, x: Tensor, context: Tensor | None, layers: Layers) -> Tensor:
        if x.shape[-3:] != self.shape:
            raise InputError(
                f"LipschitzConvNet reads images of shape (*batch, {', '.join(map(str, self.shape))}); got {tuple(x.shape)}."
            )
        bound = self.input_bound
        out = _convolved(x if bound is None else bound_input(x, bound), *layers[0])
        if self.read is None:
            return out
        context = required_context(context, self.context, "LipschitzConvNet")
        return out + self.read(context if bound is None else bound_input(context, bound))[..., None, None]

    def _sharpness(self) -> list[Tensor | None]:
        if self.raw_sharpness is None:
            return [None] * len(self.hidden)
        return list(F.softplus(self.raw_sharpness).unbind())


def _convolved(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The convolution of images with any batch shape."""
    y = F.conv2d(x.reshape(-1, *x.shape[-3:]), weight, bias, padding=weight.shape[-1] // 2)
    return y.reshape(*x.shape[:-3], *y.shape[-3:])


def _transposed(y: Tensor, weight: Tensor) -> Tensor:
    """The transposed matrix of :func:`_convolved`."""
    x = F.conv_transpose2d(y.reshape(-1, *y.shape[-3:]), weight, padding=weight.shape[-1] // 2)
    return x.reshape(*y.shape[:-3], *x.shape[-3:])
