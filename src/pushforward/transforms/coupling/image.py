"""Coupling of images: part of the pixels or channels is transformed, with parameters that a network computes from the rest."""

from __future__ import annotations

import torch
from torch import Tensor

from pushforward.errors import ConfigError
from pushforward.networks.conv import ConvNet
from pushforward.networks.conv_attention import ConvAttentionNet
from pushforward.numerics import Noise, sum_event
from pushforward.numerics.checks import check_choice, check_integer, check_widths
from pushforward.registry import register
from pushforward.transforms.base import Shape, Step, Transform, check_context, outside
from pushforward.transforms.transformers.affine import AffineTransformer
from pushforward.transforms.transformers.base import Transformer, check_transformer, cos_and_sin
from pushforward.transforms.validation import image_shape

__all__ = ["ImageCoupling"]


@register("transforms")
class ImageCoupling(Transform):
    """z_A = x_A, z_B = f(x_B; network(x_A, context)) on images (Dinh et al. 2016, sec. 3.4; Kingma and Dhariwal 2018, 3.3).

    log abs det dz/dx = sum over B of log f'. Encoding and decoding cost one network pass each. The network's outputs
    are 0 at the start, so f starts as the identity (except for the gated transformer).

    Args:
        features: (channels, height, width).
        transformer: the transformer f, affine by default.
        mask: the conditioning part A. "channels": the first ``keep`` channels. "checkerboard": the first ``keep`` channels, and
            in the others the pixels with an even sum of row and column; the network also reads the color of each square.
        keep: number of channels that condition; by default half of them for "channels", and none for "checkerboard".
        flip: for "channels" A is the last ``keep`` channels; for "checkerboard" A has the pixels with an odd sum.
        hidden: widths of the network's hidden layers; () is one convolution.
        residual: residual blocks instead of plain layers.
        normalize: batch and weight normalization in the residual blocks (Dinh et al. 2016, sec. 3.7). In training the result
            of a row then depends on its batch; at evaluation the statistics are those of the whole training set, set by
            :meth:`refresh`.
        heads: number of heads of self-attention between the pixels; 0 for none. With attention the network is that of Flow++
            (:class:`~pushforward.networks.conv_attention.ConvAttentionNet`), and ``hidden`` are the widths of its blocks.
        kernel_size: size of the network's convolutions, odd.
        activation: name of the activation function.
        dropout: dropout probability in the network.
        context: width of the context, which the network reads at every pixel.
        input_bound: inputs of the network are clamped to [-input_bound, input_bound].

    Raises:
        ConfigError: if the mask contains everything, or for impossible widths.

    Example:
        >>> import torch
        >>> coupling = ImageCoupling((3, 8, 8), mask="checkerboard", hidden=(16,))
        >>> x = torch.randn(2, 3, 8, 8)
        >>> torch.allclose(coupling.decode(coupling.encode(x).z), x, atol=1e-5)
        True
    """

    colors: Tensor

    def __init__(
        self,
        features: Shape,
        transformer: Transformer | None = None,
        *,
        mask: str = "channels",
        keep: int | None = None,
        flip: bool = False,
        hidden: tuple[int, ...] = (64, 64),
        residual: bool = False,
        normalize: bool = False,
        heads: int = 0,
        kernel_size: int = 3,
        activation: str = "relu",
        dropout: float = 0.0,
        context: int = 0,
        input_bound: float = 10.0,
    ) -> None:
        super().__init__(features)
        channels, height, width = image_shape(features, "ImageCoupling")
        check_integer("context", context, 0)
        check_choice("mask", mask, ("channels", "checkerboard"))
        self.features, self.transformer = features, check_transformer(transformer or AffineTransformer())
        self.mask, self.keep, self.flip = mask, keep, flip
        self.hidden, self.residual, self.kernel_size = (
            check_widths("hidden", hidden, equal=residual),
            residual,
            kernel_size,
        )
        self.normalize, self.heads = normalize, check_integer("heads", heads, 0)
        if heads and (residual or normalize):
            raise ConfigError(
                "residual and normalize do not apply to networks with attention: leave them out, or set heads=0."
            )
        self.activation, self.dropout, self.context, self.input_bound = activation, dropout, context, input_bound
        self.domain = self.codomain = self.transformer.support
        board = mask == "checkerboard"
        kept = (0 if board else channels // 2) if keep is None else check_integer("keep", keep, 0)
        if kept >= channels or (not board and not kept):
            raise ConfigError(
                f"the mask {mask!r} must leave channels to transform{'' if board else ' and some to condition on'}; "
                f"got keep={keep} of {channels} channels."
            )
        # Two ranges of channels: one only conditions; the other is transformed, as a whole or at the pixels of one color.
        last = flip and not board
        self.kept = slice(channels - kept, channels) if last else slice(0, kept)
        self.block = slice(0, channels - kept) if last else slice(kept, channels)
        self.width = channels - kept
        even = torch.arange(height)[:, None] % 2 == torch.arange(width)[None, :] % 2
        # A single pixel has one color, which is transformed.
        colors = even if flip or height * width == 1 else ~even
        self.register_buffer("colors", colors if board else torch.ones(height, width, dtype=torch.bool))
        inputs = kept * (2 if self.transformer.periodic else 1) + context
        if board:
            inputs += self.width * (2 if self.transformer.periodic else 1) + 1
        options = {"kernel_size": kernel_size, "dropout": dropout, "input_bound": input_bound, "output_gain": 0.0}
        outputs = self.transformer.parameters * self.width
        self.network: ConvNet | ConvAttentionNet
        if heads:
            self.network = ConvAttentionNet(inputs, outputs, (height, width), self.hidden, heads=heads, **options)
        else:
            self.network = ConvNet(
                inputs, outputs, self.hidden, residual=residual, normalize=normalize, activation=activation, **options
            )

    @property
    def needs_refresh(self) -> bool:
        """Whether the network has batch normalization, whose statistics must match the current weights."""
        return self.normalize

    def refresh(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Set the statistics of the network's batch normalization from these rows; return their z."""
        if isinstance(self.network, ConvNet) and self.normalize:
            with self.network.gathering():
                self.encode(x, context)
        return self.encode(x, context).z

    @property
    def transformed(self) -> Tensor:
        """The coordinates of B, as indices of the flattened event."""
        where = torch.zeros(self.in_shape, dtype=torch.bool, device=self.colors.device)
        where[self.block] = self.colors
        return where.flatten().nonzero()[:, 0]

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """Data to noise in one pass."""
        z, contribution = self._run(x, context, inverse=False)
        return Step(z, contribution + outside(x, self.domain, 3))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Noise to data in one pass."""
        return self._run(z, context, inverse=True)[0]

    def decode_with_contribution(
        self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None
    ) -> tuple[Tensor, Tensor]:
        """Noise to data in one pass, with the contribution of ``encode``."""
        return self._run(z, context, inverse=True)

    def _run(self, x: Tensor, context: Tensor | None, inverse: bool) -> tuple[Tensor, Tensor]:
        kept, block = x[..., self.kept, :, :], x[..., self.block, :, :]
        board = self.mask == "checkerboard"
        # Zeros where nothing is transformed, so that extreme values there cannot make a gradient NaN.
        selected = torch.where(self.colors, block, 0.0) if board else block
        raw = self._raw(kept, torch.where(self.colors, 0.0, block) if board else None, context, selected)
        y, slope = (self.transformer.inverse if inverse else self.transformer.forward)(selected, raw)
        if board:
            y, slope = torch.where(self.colors, y, block), torch.where(self.colors, slope, 0.0)
        parts = (y, kept) if self.flip and not board else (kept, y)
        return torch.cat(parts, -3), sum_event(slope, 3)

    def _raw(self, kept: Tensor, other: Tensor | None, context: Tensor | None, like: Tensor) -> Tensor:
        """The transformer's raw parameters for the block, ``(parameters, *block)``; at least float32, under autocast too."""
        check_context(context, self.context, "ImageCoupling")
        inputs = kept if other is None else torch.cat((kept, other), -3)
        if self.transformer.periodic:
            inputs = cos_and_sin(inputs, -3)
        batch, size = like.shape[:-3], like.shape[-2:]
        planes = []
        if other is not None:
            planes.append(self.colors.to(like.dtype).expand(*batch, 1, *size))
        if self.context and context is not None:
            planes.append(context.to(like.dtype)[..., None, None].expand(*batch, self.context, *size))
        raw = self.network(torch.cat((inputs, *planes), -3) if planes else inputs).to(like.dtype)
        return raw.unflatten(-3, (self.transformer.parameters, self.width)).movedim(-4, 0)
