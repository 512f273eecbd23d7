"""Coupling of images: part of the pixels or channels is transformed by a law whose parameters a network reads off the rest."""

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
from pushforward.transforms.transformers.base import Transformer, check_transformer
from pushforward.transforms.validation import image_shape

__all__ = ["ImageCoupling"]


@register("transforms")
class ImageCoupling(Transform):
    """z_A = x_A, z_B = f(x_B; network(x_A, context)) on images (Dinh et al. 2016, sec. 3.4; Kingma and Dhariwal 2018, 3.3).

    log abs det dz/dx = sum over B of log f'. Encoding and decoding cost one network pass each. The network starts at 0,
    and so f at the identity (for all laws but the gated one).

    Args:
        features: (channels, height, width).
        transformer: the law f.
        mask: what forms A. "channels": the first ``keep`` channels. "checkerboard": in all but the first ``keep`` channels
            the pixels with an even sum of row and column, and those ``keep`` channels; the network also reads the colors.
        keep: by default half of the channels for "channels", and none for "checkerboard".
        flip: of the channels the last ``keep`` condition the others; of the checkerboard the other color.
        hidden: widths of the network's hidden layers; () is one convolution.
        residual: residual blocks instead of plain layers.
        normalize: batch and weight normalization inside the residual blocks (Dinh et al. 2016, sec. 3.7). In training rows
            then see each other; at evaluation the statistics are those of the whole training set, set by :meth:`refresh`.
        heads: of self-attention between the pixels; 0 for none. With some the network is that of Flow++
            (:class:`~pushforward.networks.conv_attention.ConvAttentionNet`), and ``hidden`` its blocks.
        kernel_size: of the network's convolutions, odd.
        activation: name of the activation.
        dropout: probability, in the network.
        context: width of the context, which the network reads at every pixel.
        input_bound: the network sees its input clamped to this range.

    Raises:
        ConfigError: if the mask leaves nothing to transform, or for impossible widths.

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
            raise ConfigError("networks with attention have blocks of their own: leave residual and normalize out.")
        self.activation, self.dropout, self.context, self.input_bound = activation, dropout, context, input_bound
        self.domain = self.codomain = self.transformer.support
        board = mask == "checkerboard"
        whole = (0 if board else channels // 2) if keep is None else check_integer("keep", keep, 0)
        if whole >= channels or (not board and not whole):
            raise ConfigError(
                f"the mask {mask!r} must leave channels to transform"
                f"{'' if board else ' and some to condition on'}; got keep={keep} of {channels}."
            )
        # Two stretches of channels, one that only conditions and one that moves, wholly or in one color.
        last = flip and not board
        self.still = slice(channels - whole, channels) if last else slice(0, whole)
        self.block = slice(0, channels - whole) if last else slice(whole, channels)
        self.width = channels - whole
        even = torch.arange(height)[:, None] % 2 == torch.arange(width)[None, :] % 2
        # A single pixel has one color, and it moves.
        colors = even if flip or height * width == 1 else ~even
        self.register_buffer("colors", colors if board else torch.ones(height, width, dtype=torch.bool))
        inputs = whole * (2 if self.transformer.periodic else 1) + context
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
        """Whether the network has batch normalization, whose statistics must belong to the current weights."""
        return self.normalize

    def refresh(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Set the statistics of the network's batch normalization from these rows; return their z."""
        if isinstance(self.network, ConvNet) and self.normalize:
            with self.network.gathering():
                self.encode(x, context)
        return self.encode(x, context).z

    @property
    def moved(self) -> Tensor:
        """Which coordinates form B, as indices of the flattened event."""
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
        still, block = x[..., self.still, :, :], x[..., self.block, :, :]
        board = self.mask == "checkerboard"
        # Zeros where nothing moves: whatever is there cannot spoil a gradient.
        inside = torch.where(self.colors, block, 0.0) if board else block
        raw = self._raw(still, torch.where(self.colors, 0.0, block) if board else None, context, inside)
        y, slope = (self.transformer.inverse if inverse else self.transformer.forward)(inside, raw)
        if board:
            y, slope = torch.where(self.colors, y, block), torch.where(self.colors, slope, 0.0)
        parts = (y, still) if self.flip and not board else (still, y)
        return torch.cat(parts, -3), sum_event(slope, 3)

    def _raw(self, still: Tensor, other: Tensor | None, context: Tensor | None, like: Tensor) -> Tensor:
        """The law's raw parameters for the block, ``(parameters, *block)``; float32 or better even under autocast."""
        check_context(context, self.context, "ImageCoupling")
        seen = still if other is None else torch.cat((still, other), -3)
        if self.transformer.periodic:
            seen = torch.cat((seen.cos(), seen.sin()), -3)
        batch, sides = like.shape[:-3], like.shape[-2:]
        more = []
        if other is not None:
            more.append(self.colors.to(like.dtype).expand(*batch, 1, *sides))
        if self.context and context is not None:
            more.append(context.to(like.dtype)[..., None, None].expand(*batch, self.context, *sides))
        raw = self.network(torch.cat((seen, *more), -3) if more else seen).to(like.dtype)
        return raw.unflatten(-3, (self.transformer.parameters, self.width)).movedim(-4, 0)
