"""Maxima: the largest of several coordinates is kept; its index and the differences to the others are dropped."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pushforward.errors import ConfigError
from pushforward.likelihood import Measure
from pushforward.numerics import Noise, draw_category, sum_event, unsoftplus
from pushforward.numerics.checks import check_widths
from pushforward.registry import register
from pushforward.transforms.base import Shape, Step, Transform
from pushforward.transforms.coupling.image import ImageCoupling
from pushforward.transforms.surjections.conditional import (
    MAX_LOG_SCALE,
    ConditionalDensity,
    base_noise,
    check_reals,
    normal_log_density,
    require_lebesgue,
)
from pushforward.transforms.transformers.affine import AffineTransformer
from pushforward.transforms.transformers.base import Transformer
from pushforward.transforms.validation import image_shape, vector_width

__all__ = ["Max", "MaxPool"]


@register("transforms")
class Max(Transform):
    """z = max_i x_i; contribution log p(k) + log p(z - x_rest | z, k), where k is the index of the maximum
    (Nielsen et al. 2020, arXiv 2007.02731, table 2).

    An inference surjection R^K to R, EXACT. The differences to the maximum have a density on positive numbers: u =
    softplus^-1(z - x_i) is normal, or has the density of a flow. ``decode`` draws index and differences from a generator;
    without one it uses the most probable index and values near the median of the differences.

    Args:
        features: number of coordinates K, at least 2.
        decoder: a bijection of width K - 1, from u in the order of the coordinates to a standard normal; its context is z
            followed by k as a one-hot vector, of width 1 + K. None is a normal with mean and scale from a network.
        hidden: widths of the hidden layers of that network.

    Raises:
        ConfigError: for fewer than two coordinates, or a decoder that does not fit.
        KindError: if the decoder is not a bijection, or the rest of the chain has no density on R.

    Example:
        >>> import torch
        >>> largest = Max(3, hidden=(8,))
        >>> largest.encode(torch.tensor([[1.0, 5.0, -2.0]])).z
        tensor([[5.]])
    """

    has_rsample = False
    logits: Tensor

    def __init__(self, features: int, decoder: Transform | None = None, *, hidden: tuple[int, ...] = (64, 64)) -> None:
        width = vector_width(features, "Max")
        if width < 2:
            raise ConfigError(f"features of Max must be at least 2; got {features!r}.")
        super().__init__(features, 1)
        self.features, self.hidden = features, check_widths("hidden", hidden)
        self.density = ConditionalDensity(width - 1, 1 + width, decoder, self.hidden, "Max")
        check_reals(self.density.flow, "Max")
        self.logits = nn.Parameter(torch.zeros(width))

    @property
    def decoder(self) -> Transform | None:
        """The flow that was given, or None for the default."""
        return self.density.given_flow

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """``(*batch, K)`` to ``(*batch, 1)``."""
        z, k = x.max(-1, keepdim=True)
        u = unsoftplus(z - x.gather(-1, _others(k, x.shape[-1])))
        prior = torch.log_softmax(self.logits, -1).to(x.dtype).expand(x.shape).gather(-1, k)[..., 0]
        contribution = prior - sum_event(F.logsigmoid(u), 1)
        return Step(z, contribution + self.density.log_prob(u, self._condition(z, k)))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """x with the maximum z at a drawn index."""
        logits = self.logits.to(z.dtype).expand(*z.shape[:-1], -1)
        k = (draw_category(logits, noise) if isinstance(noise, torch.Generator) else logits.argmax(-1)).unsqueeze(-1)
        rest = z + F.logsigmoid(-self.density.draw(self._condition(z, k), noise))
        width = self.in_shape[0]
        return torch.cat((z, rest), -1).gather(-1, torch.argsort(torch.cat((k, _others(k, width)), -1), dim=-1))

    def measure(self, latent: Measure) -> Measure:
        """Lebesgue(1) becomes Lebesgue(K)."""
        return require_lebesgue(latent, self.in_shape[0], "Max")

    def _condition(self, z: Tensor, k: Tensor) -> Tensor:
        place = torch.arange(self.in_shape[0], device=k.device)  # one_hot reads values, which vmap forbids
        return torch.cat((z, (k == place).to(z.dtype)), -1)


@register("transforms")
class MaxPool(Transform):
    """z = maxima of windows of 2 x 2 pixels: (C, H, W) to (C, H / 2, W / 2) (Nielsen et al. 2020, sec. 4.3 and table 2).

    An inference surjection, EXACT. In each window the position of the maximum is uniform, -log 4. A coupling of (z, u) that
    keeps z transforms u = softplus^-1(z - x) of the other three pixels to a standard normal, with parameters that a
    convolutional network computes from z. ``decode`` draws positions and differences from a generator; without one the
    maximum is the first pixel and the differences are near their median.

    Args:
        features: (channels, height, width), with even height and width.
        transformer: transformer of u given z, affine by default.
        hidden: widths of the network's hidden layers.
        kernel_size: size of its convolutions, odd.

    Raises:
        ConfigError: for an odd height or width, or a transformer whose domain is not all reals.
        KindError: if the rest of the chain has no density on R^(C H W / 4).

    Example:
        >>> import torch
        >>> pool = MaxPool((1, 4, 4), hidden=(8,))
        >>> pool.encode(torch.arange(16.0).reshape(1, 1, 4, 4)).z.flatten()
        tensor([ 5.,  7., 13., 15.])
    """

    def __init__(
        self,
        features: Shape,
        transformer: Transformer | None = None,
        *,
        hidden: tuple[int, ...] = (32, 32),
        kernel_size: int = 3,
    ) -> None:
        channels, height, width = image_shape(features, "MaxPool")
        if height % 2 or width % 2:
            raise ConfigError(f"height and width must be even for MaxPool; got {height} x {width}.")
        super().__init__(features, (channels, height // 2, width // 2))
        self.features, self.hidden, self.kernel_size = features, check_widths("hidden", hidden), kernel_size
        self.transformer = transformer or AffineTransformer(MAX_LOG_SCALE)
        self.coupling = ImageCoupling(
            (4 * channels, height // 2, width // 2), self.transformer, keep=channels, hidden=hidden, kernel_size=kernel_size
        )  # fmt: skip
        check_reals(self.coupling, "MaxPool")

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """``(*batch, C, H, W)`` to ``(*batch, C, H / 2, W / 2)``."""
        windows = self._windows(x)
        z, k = windows.max(-1, keepdim=True)
        u = unsoftplus(z - windows.gather(-1, _others(k, 4)))
        z = z[..., 0]
        e, contribution = self.coupling(torch.cat((z, u.movedim(-1, -4).flatten(-4, -3)), -3))
        contribution = contribution - sum_event(F.logsigmoid(u), 4) - math.prod(self.out_shape) * math.log(4.0)
        return Step(z, contribution + normal_log_density(e[..., self.in_shape[0] :, :, :], 3))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Windows whose maxima are z."""
        e = base_noise(torch.cat((z, z, z), -3), 3, noise)
        u = self.coupling.decode(torch.cat((z, e), -3))[..., self.in_shape[0] :, :, :]
        rest = z.unsqueeze(-1) + F.logsigmoid(-u).unflatten(-3, (3, -1)).movedim(-4, -1)
        k = torch.zeros((*z.shape, 1), dtype=torch.int64, device=z.device)
        if isinstance(noise, torch.Generator):
            k = torch.randint(4, k.shape, generator=noise, device=z.device)
        windows = torch.cat((z.unsqueeze(-1), rest), -1)
        windows = windows.gather(-1, torch.argsort(torch.cat((k, _others(k, 4)), -1), dim=-1))
        batch, (channels, height, width) = z.shape[:-3], self.out_shape
        blocks = windows.reshape(*batch, channels, height, width, 2, 2).movedim(-2, -3)
        return blocks.reshape(*batch, *self.in_shape)

    def measure(self, latent: Measure) -> Measure:
        """Lebesgue(C H W / 4) becomes Lebesgue(C H W)."""
        return require_lebesgue(latent, math.prod(self.in_shape), "MaxPool")

    def _windows(self, x: Tensor) -> Tensor:
        """``(*batch, C, H / 2, W / 2, 4)``, the pixels of a window row by row."""
        channels, height, width = self.out_shape
        blocks = x.reshape(*self.batch_shape(x), channels, height, 2, width, 2)
        return blocks.movedim(-3, -2).flatten(-2)


def _others(k: Tensor, count: int) -> Tensor:
    """The indices 0, ..., count - 1 without k, in order: ``(*, 1)`` to ``(*, count - 1)``."""
    index = torch.arange(count - 1, device=k.device).expand(*k.shape[:-1], count - 1)
    return index + (index >= k).to(index.dtype)
