"""Variational dequantization: noise whose density is learned, given the image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pushforward.errors import ConfigError
from pushforward.likelihood import UNIT, Kind, Measure
from pushforward.networks.mlp import check_width
from pushforward.numerics import Noise, sum_event, uniform_like
from pushforward.registry import register
from pushforward.transforms.base import Shape, Step, Transform
from pushforward.transforms.coupling.image import ImageCoupling
from pushforward.transforms.discrete.dequantize import UniformDequantize
from pushforward.transforms.elementwise.transformers import AffineTransformer, Transformer
from pushforward.transforms.validation import image_shape

__all__ = ["VariationalDequantize"]


@register("transforms")
class VariationalDequantize(Transform):
    """z = (x + u) / levels with u drawn from a flow q(u | x) on (0, 1) that reads the image (Ho et al. 2019, sec. 3.1).

    log P(x) >= E_q [ log p(z) - log q(u | x) ] - sum log levels (eq. 12): the contribution, on Counting(D). u is the
    sigmoid of a logistic variable that couplings have moved, given x: first an affine law for every noise coordinate,
    then couplings on the checkerboard. They start as the identity, and u as uniform.

    An x that is no integer in 0, ..., levels - 1 has the contribution -inf. ``decode`` is floor(levels z).

    Args:
        features: (channels, height, width).
        levels: number of integer values.
        couplings: on the checkerboard, after the first law.
        hidden: widths of the networks' hidden layers.
        transformer: law of the couplings; affine by default.

    Raises:
        ConfigError: if levels is no integer from 1 on, or the event is no image.

    Example:
        >>> import torch
        >>> from pushforward.transforms import VariationalDequantize
        >>> pixels = VariationalDequantize((1, 1, 2), levels=256, hidden=(8,))
        >>> step = pixels.encode(torch.tensor([[[0.0, 255.0]]]))
        >>> pixels.decode(step.z.detach()), step.contribution.detach()         # -2 log 256 before training
        (tensor([[[  0., 255.]]]), tensor(-11.0904))
    """

    codomain = UNIT
    kind = Kind.LOWER_BOUND

    def __init__(
        self,
        features: Shape,
        levels: int = 256,
        *,
        couplings: int = 2,
        hidden: tuple[int, ...] = (32, 32),
        transformer: Transformer | None = None,
    ) -> None:
        super().__init__(features)
        channels, height, width = image_shape(features, "VariationalDequantize")
        if not isinstance(levels, int):
            raise ConfigError(f"levels must be an integer from 1 on; got {levels!r}.")
        self.features, self.levels, self.hidden = features, levels, hidden
        self.couplings, self.transformer = check_width("couplings", couplings, 0), transformer or AffineTransformer()
        self.uniform = UniformDequantize(features, levels)
        self.domain = self.uniform.domain
        # Transforms of (image, noise) that keep the image as it is.
        both = (2 * channels, height, width)
        flow = [ImageCoupling(both, self.transformer, keep=channels, hidden=hidden)]
        flow += [
            ImageCoupling(
                both, self.transformer, mask="checkerboard", keep=channels, flip=k % 2 == 1, hidden=hidden
            )
            for k in range(couplings)
        ]  # fmt: skip
        self.flow = torch.nn.ModuleList(flow)

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """(x + u) / levels, with u from the flow."""
        count = self.uniform.count
        x = x.to(torch.promote_types(count.dtype, x.dtype))
        count = count.to(x.dtype)
        whole = torch.floor(torch.minimum(x.clamp(min=0), count - 1))
        edge = torch.finfo(x.dtype).eps
        start = torch.clamp(uniform_like(x, 3, noise), edge, 1 - edge)
        moved = torch.log(start) - torch.log1p(-start)
        log_q = sum_event(F.logsigmoid(moved) + F.logsigmoid(-moved), 3)
        state = torch.cat((2 * whole / count - 1, moved), -3)
        for part in self.flow:
            state, volume = part(state)
            log_q = log_q - volume
        moved = state[..., self.in_shape[0] :, :, :]
        log_q = log_q - sum_event(F.logsigmoid(moved) + F.logsigmoid(-moved), 3)
        u = torch.clamp(torch.sigmoid(moved), edge * count, 1 - edge * count)
        legal = (whole == x).flatten(-3).all(-1)
        contribution = -log_q - sum_event(count.log(), 3)
        return Step((whole + u) / count, torch.where(legal, contribution, -torch.inf))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """floor(levels z), within 0, ..., levels - 1."""
        return self.uniform.decode(z)

    def measure(self, latent: Measure) -> Measure:
        """Lebesgue(D) becomes Counting(D).

        Raises:
            KindError: for a latent density on anything but Lebesgue(D).
        """
        return self.uniform.measure(latent)
