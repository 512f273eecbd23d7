"""Invertible 1 x 1 convolution: one matrix that mixes the channels of every pixel."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pushforward.errors import ConfigError
from pushforward.numerics import Noise, soft_clamp
from pushforward.registry import register
from pushforward.transforms.base import Shape, Step, Transform
from pushforward.transforms.linear.linear import whole_precision
from pushforward.transforms.validation import image_shape, seeded_normal

__all__ = ["InvertibleConv1x1"]

MAX_LOG_DIAGONAL = 7.0


@register("transforms")
class InvertibleConv1x1(Transform):
    """z_ij = W x_ij at every pixel; contribution H W log abs det W (Kingma and Dhariwal 2018, eq. 9).

    W starts as a random rotation. "lu" holds it as P L (U + diag(s)) with P and the signs of s fixed and log abs s
    in (-7, 7), smoothly (eq. 10-11); its determinant costs nothing and W cannot become singular. "free" trains all of W.

    Args:
        features: (channels, height, width).
        form: "lu" or "free".
        seed: of the starting rotation.

    Raises:
        ConfigError: if the event is no image, or for an unknown form.

    Example:
        >>> import torch
        >>> from pushforward.transforms import InvertibleConv1x1
        >>> mix = InvertibleConv1x1((3, 4, 4))
        >>> x = torch.randn(2, 3, 4, 4)
        >>> torch.allclose(mix.decode(mix.encode(x).z), x, atol=1e-5)
        True
    """

    permutation: Tensor
    sign: Tensor

    def __init__(self, features: Shape, form: str = "lu", seed: int = 0) -> None:
        super().__init__(features)
        channels = image_shape(features, "InvertibleConv1x1")[0]
        if form not in ("lu", "free"):
            raise ConfigError(f"form must be 'lu' or 'free'; got {form!r}.")
        self.features, self.form, self.seed = features, form, seed
        start = seeded_normal(channels, channels, seed=seed)
        rotation = start if start.is_meta else torch.linalg.qr(start.double())[0].contiguous()
        if form == "free":
            self.matrix = nn.Parameter(rotation.to(start.dtype))
            return
        places, packed = torch.arange(channels), rotation
        if not rotation.is_meta:
            pivot, lower, upper = torch.linalg.lu(rotation)
            places, packed = pivot.argmax(-1), (lower.tril(-1) + upper).contiguous()
        diagonal = packed.diagonal()
        self.register_buffer("permutation", places)
        self.register_buffer("sign", diagonal.sign().to(start.dtype))
        # As LAPACK does: L below the diagonal, U above. The diagonal itself is kept apart, as a bounded logarithm.
        self.packed = nn.Parameter((packed.tril(-1) + packed.triu(1)).to(start.dtype))
        raw = MAX_LOG_DIAGONAL * torch.atanh(diagonal.abs().log() / MAX_LOG_DIAGONAL)
        self.log_diagonal = nn.Parameter(raw.to(start.dtype))

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """W x at every pixel."""
        with whole_precision(x):
            matrix, log_det = self._matrix(x)
            pixels = self.in_shape[1] * self.in_shape[2]
            return Step(mix(x, matrix), (pixels * log_det).to(matrix.dtype).expand(self.batch_shape(x)))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """W^-1 z at every pixel."""
        with whole_precision(z):
            matrix, _ = self._matrix(z)
            # In float64, as rounding the inverse would be the largest error of a round trip.
            return mix(z, torch.linalg.inv(matrix.double())).to(matrix.dtype)

    def matrix_and_log_det(self) -> tuple[Tensor, Tensor]:
        """W, ``(C, C)``, and log abs det W."""
        return self._matrix(self.matrix if self.form == "free" else self.packed)

    def _matrix(self, like: Tensor) -> tuple[Tensor, Tensor]:
        if self.form == "free":
            matrix = self.matrix.to(torch.promote_types(self.matrix.dtype, like.dtype))
            return matrix, torch.linalg.slogdet(matrix.double())[1]
        packed = self.packed.to(torch.promote_types(self.packed.dtype, like.dtype))
        log_diagonal = soft_clamp(self.log_diagonal.to(packed.dtype), MAX_LOG_DIAGONAL)
        upper = packed.triu(1) + torch.diag(self.sign * log_diagonal.exp())
        product = torch.addmm(upper, packed.tril(-1), upper)  # L's diagonal is 1
        return product.index_select(0, self.permutation), log_diagonal.sum()


def mix(x: Tensor, matrix: Tensor) -> Tensor:
    """A matrix ``(out, in)`` applied to the channels of every pixel of ``(*batch, in, H, W)``."""
    return (matrix @ x.to(matrix.dtype).flatten(-2)).unflatten(-1, x.shape[-2:])
