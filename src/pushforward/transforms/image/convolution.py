"""Invertible convolutions: 1 x 1, and k x k (causal, emerging, depthwise and periodic)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pushforward.errors import ConfigError
from pushforward.numerics import Noise, full_precision, log_abs_det, soft_clamp
from pushforward.numerics.checks import check_choice, check_integer, check_number
from pushforward.registry import register
from pushforward.transforms.base import Shape, Step, Transform
from pushforward.transforms.validation import image_shape, seeded_normal

__all__ = ["InvertibleConv1x1", "InvertibleConv2d"]


MAX_LOG_DIAGONAL = 7.0
"""Smooth bound on abs(log abs s) of the diagonal s of the LU form."""


@register("transforms")
class InvertibleConv1x1(Transform):
    """z_ij = W x_ij at every pixel; contribution H W log abs det W (Kingma and Dhariwal 2018, eq. 9).

    W starts as a random rotation. "lu" parameterizes it as P L (U + diag(s)) with P and the signs of s fixed and log abs s
    smoothly bounded by 7 (eq. 10-11), so that its determinant is cheap and W cannot become singular. "free" trains W itself.

    Args:
        features: (channels, height, width).
        form: "lu" or "free".
        seed: seed of the initial rotation.

    Raises:
        ConfigError: if the event is not an image, or for an unknown form.

    Example:
        >>> import torch
        >>> from pushforward.transforms import InvertibleConv1x1
        >>> conv = InvertibleConv1x1((3, 4, 4))
        >>> x = torch.randn(2, 3, 4, 4)
        >>> torch.allclose(conv.decode(conv.encode(x).z), x, atol=1e-5)
        True
    """

    index_buffers = ("permutation",)
    permutation: Tensor
    sign: Tensor

    def __init__(self, features: Shape, form: str = "lu", seed: int = 0) -> None:
        super().__init__(features)
        channels = image_shape(features, "InvertibleConv1x1")[0]
        check_choice("form", form, ("lu", "free"))
        self.features, self.form, self.seed = features, form, seed
        start = seeded_normal(channels, channels, seed=seed)
        rotation = start if start.is_meta else torch.linalg.qr(start.double())[0].contiguous()
        if form == "free":
            self.matrix = nn.Parameter(rotation.to(start.dtype))
            return
        permutation, packed = torch.arange(channels), rotation
        if not rotation.is_meta:
            pivot, lower, upper = torch.linalg.lu(rotation)
            permutation, packed = pivot.argmax(-1), (lower.tril(-1) + upper).contiguous()
        diagonal = packed.diagonal()
        self.register_buffer("permutation", permutation)
        self.register_buffer("sign", diagonal.sign().to(start.dtype))
        # As in LAPACK: L below the diagonal, U above. The diagonal is a parameter of its own, as a bounded logarithm.
        self.packed = nn.Parameter((packed.tril(-1) + packed.triu(1)).to(start.dtype))
        raw = MAX_LOG_DIAGONAL * torch.atanh(diagonal.abs().log() / MAX_LOG_DIAGONAL)
        self.log_diagonal = nn.Parameter(raw.to(start.dtype))

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """W x at every pixel."""
        with full_precision(x):
            matrix, log_det = self._matrix(x)
            pixels = self.in_shape[1] * self.in_shape[2]
            return Step(mix_channels(x, matrix), (pixels * log_det).to(matrix.dtype).expand(self.batch_shape(x)))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """W^-1 z at every pixel."""
        with full_precision(z):
            matrix, _ = self._matrix(z)
            # In float64, as the rounding of the inverse would be the largest error of a round trip.
            return mix_channels(z, torch.linalg.inv(matrix.double())).to(matrix.dtype)

    def matrix_and_log_det(self) -> tuple[Tensor, Tensor]:
        """W, ``(C, C)``, and log abs det W."""
        return self._matrix(self.matrix if self.form == "free" else self.packed)

    def _matrix(self, like: Tensor) -> tuple[Tensor, Tensor]:
        if self.form == "free":
            matrix = self.matrix.to(torch.promote_types(self.matrix.dtype, like.dtype))
            return matrix, log_abs_det(matrix.double())
        packed = self.packed.to(torch.promote_types(self.packed.dtype, like.dtype))
        log_diagonal = soft_clamp(self.log_diagonal.to(packed.dtype), MAX_LOG_DIAGONAL)
        upper = packed.triu(1) + torch.diag(self.sign * log_diagonal.exp())
        product = torch.addmm(upper, packed.tril(-1), upper)  # L's diagonal is 1
        return product.index_select(0, self.permutation), log_diagonal.sum()


def mix_channels(x: Tensor, matrix: Tensor) -> Tensor:
    """A matrix ``(out, in)`` applied to the channels of every pixel of ``(*batch, in, H, W)``."""
    return (matrix @ x.to(matrix.dtype).flatten(-2)).unflatten(-1, x.shape[-2:])


MODES = ("causal", "emerging", "depthwise", "periodic")


@register("transforms")
class InvertibleConv2d(Transform):
    """z = W (I + N) x: a convolution N that reads only other pixels, then a 1 x 1 convolution W.

    Every k x k convolution with an invertible center tap W has this form. The modes differ in the pixels that N reads:

    - "causal": k x k pixels above and to the left, without the pixel itself (CInC, Nagar et al. 2021, with a full matrix
      in place of the triangular center tap);
    - "emerging": W (I + N2) (I + N1), where N1 reads pixels earlier in raster order, up to k // 2 away, and N2 later ones
      (Hoogeboom et al. 2019, sec. 3.1; their center taps are triangular, here W is a full matrix);
    - "depthwise": as causal, but each channel by itself, C k^2 + C^2 numbers (our reading of Truong et al. 2019);
    - "periodic": the k x k pixels around it, on a torus (Hoogeboom et al. 2019, sec. 3.2; Finzi et al. 2019).

    Contribution: H W log abs det W, for "periodic" plus the sum over frequencies of log abs det (I + N(f)), where N(f) is
    the C x C matrix of the Fourier transform. In the other modes N is nilpotent, so the iteration x <- y - N x is exact
    after :attr:`sweeps` rounds, and the inverse takes that many convolutions. "periodic" solves a linear system for each
    frequency.

    The taps are scaled so that the operator norm of N stays below ``max_norm`` (by the Schur test: the square root of the
    product of the largest sums of absolute taps into and out of a channel). A norm below 1 bounds the amplification of
    errors by the inverse, by 1 / (1 - max_norm), and no frequency becomes singular. See :meth:`condition`. N starts at 0.

    Args:
        features: (channels, height, width).
        mode: "causal", "emerging", "depthwise" or "periodic".
        kernel_size: kernel size k; odd for "emerging" and "periodic".
        max_norm: bound on the norm of N, in (0, 1).
        form: form of W, "lu" or "free".
        seed: seed of the initial rotation W.

    Raises:
        ConfigError: for an unknown mode, an even kernel where it must be odd, or a bound outside (0, 1).

    Example:
        >>> import torch
        >>> conv = InvertibleConv2d((2, 4, 4), mode="causal")
        >>> x = torch.randn(3, 2, 4, 4)
        >>> torch.allclose(conv.decode(conv.encode(x).z), x, atol=1e-5)
        True
        >>> conv.sweeps
        7
    """

    allowed: Tensor

    def __init__(
        self,
        features: Shape,
        mode: str = "causal",
        kernel_size: int = 3,
        *,
        max_norm: float = 0.9,
        form: str = "lu",
        seed: int = 0,
    ) -> None:
        super().__init__(features)
        channels, height, width = image_shape(features, "InvertibleConv2d")
        check_choice("mode", mode, MODES)
        if check_integer("kernel_size", kernel_size) % 2 == 0 and mode in ("emerging", "periodic"):
            raise ConfigError(
                f"kernel_size must be odd in the mode {mode!r}, whose kernels have a center; got {kernel_size}."
            )
        check_number("max_norm", max_norm, 0, 1)
        self.features, self.mode, self.kernel_size = features, mode, kernel_size
        self.max_norm, self.form, self.seed = max_norm, form, seed
        half = kernel_size // 2
        rows = half + 1 if mode == "emerging" else kernel_size
        corner = mode in ("causal", "depthwise")
        # The position of the pixel itself in the kernel, and the padding of the image: left, right, top, bottom.
        center = (rows - 1, kernel_size - 1 if corner else half)
        self.padding = (kernel_size - 1, 0, rows - 1, 0) if corner else (half, half, rows - 1, 0)
        row, column = torch.arange(rows)[:, None], torch.arange(kernel_size)[None, :]
        if mode == "periodic":
            center = (half, half)
            allowed = (row != half) | (column != half)
        else:
            allowed = (row < center[0]) | (column < center[1])
        self.register_buffer("allowed", allowed)
        self.groups = channels if mode == "depthwise" else 1
        self.taps = nn.Parameter(
            torch.zeros(2 if mode == "emerging" else 1, channels, channels // self.groups, rows, kernel_size)
        )
        self.center = InvertibleConv1x1((channels, height, width), form=form, seed=seed)

    @property
    def sweeps(self) -> int:
        """Rounds after which the iteration x <- y - N x from 0 is exact; in emerging mode for each N. 0 in periodic mode."""
        _, height, width = self.in_shape
        if self.mode == "periodic":
            return 0
        if self.kernel_size == 1:
            return 1
        if self.mode == "emerging":  # a step up one row may move k // 2 columns to the right, which takes more rounds
            return width + (min(self.kernel_size // 2, width - 1) + 1) * (height - 1)
        return height + width - 1

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """W (I + N) x."""
        with full_precision(x):
            y, log_det = x.to(torch.promote_types(x.dtype, self.taps.dtype)), None
            if self.mode == "periodic":
                frequencies = self._frequencies()
                y = self._filter(y, frequencies)
                log_det = self._sum_over_frequencies(log_abs_det(frequencies))
            else:
                for kernel, rotated in self._kernels():
                    y = y + self._convolve(y, kernel, rotated)
            step = self.center.encode(y)
            return step if log_det is None else Step(step.z, step.contribution + log_det.to(y.dtype))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """(I + N)^-1 W^-1 z."""
        with full_precision(z):
            y = self.center.decode(z)
            if self.mode == "periodic":
                return self._filter(y, torch.linalg.inv(self._frequencies()))
            for kernel, rotated in reversed(self._kernels()):
                x = y
                for _ in range(self.sweeps - 1):
                    x = y - self._convolve(x, kernel, rotated)
                y = x
            return y

    def condition(self) -> Tensor:
        """A bound on the condition number: cond(W) times (1 + n) / (1 - n) for each N of norm at most n. A scalar.

        Its logarithm to base 10 is about the number of digits that a round trip loses.
        """
        values = torch.linalg.svdvals(self.center.matrix_and_log_det()[0].double())
        norms = torch.stack([schur_norm(taps) for taps in self._scaled().double()])
        return values.amax() / values.amin() * ((1 + norms) / (1 - norms)).prod()

    def _scaled(self) -> Tensor:
        """The allowed taps, scaled to a norm below ``max_norm``."""
        taps = self.taps * self.allowed
        norms = torch.stack([schur_norm(kernel) for kernel in taps])
        scale = self.max_norm * torch.tanh(norms / self.max_norm) / norms
        return taps * scale[:, None, None, None, None]

    def _kernels(self) -> list[tuple[Tensor, bool]]:
        """Kernels of the N's in the order in which they are applied, and whether the image is rotated by 180 degrees before."""
        return [(kernel, i == 1) for i, kernel in enumerate(self._scaled().unbind())]

    def _convolve(self, x: Tensor, kernel: Tensor, rotated: bool) -> Tensor:
        rows = x.reshape(-1, *self.in_shape)
        rows = rows.flip(-1, -2) if rotated else rows
        rows = F.conv2d(F.pad(rows, self.padding), kernel.to(x.dtype), groups=self.groups)
        return (rows.flip(-1, -2) if rotated else rows).reshape(x.shape)

    def _frequencies(self) -> Tensor:
        """I + N(f), ``(H, W // 2 + 1, C, C)``, at the frequencies of a Fourier transform of real data."""
        channels, height, width = self.in_shape
        taps = self._scaled()[0].double()
        offsets = torch.arange(self.kernel_size, device=taps.device, dtype=taps.dtype) - self.kernel_size // 2
        waves = []
        for length, count in ((height, height), (width, width // 2 + 1)):
            frequency = torch.arange(count, device=taps.device, dtype=taps.dtype)
            angle = (2 * math.pi / length) * offsets[:, None] * frequency
            waves.append(torch.complex(angle.cos(), angle.sin()))
        response = torch.einsum("oiab,ah,bw->hwoi", taps.to(waves[0].dtype), *waves)
        return response + torch.eye(channels, device=taps.device)

    def _filter(self, x: Tensor, frequencies: Tensor) -> Tensor:
        if x.numel() == 0:  # rfft2 refuses empty batches
            return x
        wave = torch.fft.rfft2(x)
        wave = torch.einsum("hwoi,...ihw->...ohw", frequencies.to(wave.dtype), wave)
        return torch.fft.irfft2(wave, s=self.in_shape[1:])

    def _sum_over_frequencies(self, values: Tensor) -> Tensor:
        """Sum over all frequencies of values at the stored half: all columns but the unpaired ones count twice."""
        last = values.shape[1] if self.in_shape[2] % 2 else values.shape[1] - 1
        return 2 * values.sum() - values[:, 0].sum() - values[:, last:].sum()


def schur_norm(taps: Tensor) -> Tensor:
    """A bound on the operator norm of a convolution, by the Schur test; always positive.

    Args:
        taps: ``(out, in, rows, columns)``, or ``(out, 1, rows, columns)`` for a depthwise convolution.
    """
    size = taps.abs().sum((-1, -2))
    outgoing = size if size.shape[1] == 1 else size.sum(0)
    return (outgoing.amax() * size.sum(1).amax() + 1e-12).sqrt()
