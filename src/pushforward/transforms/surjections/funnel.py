"""Funnels of vectors and images: some coordinates transform the others, then are dropped with their density given the rest."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pushforward.errors import ConfigError
from pushforward.likelihood import Measure
from pushforward.numerics import Noise
from pushforward.numerics.checks import check_integer, check_widths
from pushforward.registry import register
from pushforward.transforms.base import Shape, Step, Transform, check_context
from pushforward.transforms.coupling.coupling import Coupling
from pushforward.transforms.coupling.image import ImageCoupling
from pushforward.transforms.image.convolution import InvertibleConv1x1
from pushforward.transforms.linear.permutation import inverse_permutation
from pushforward.transforms.surjections.conditional import (
    MAX_LOG_SCALE,
    ConditionalDensity,
    base_noise,
    check_reals,
    normal_log_density,
    require_lebesgue,
)
from pushforward.transforms.surjections.slice import split_coordinates
from pushforward.transforms.transformers.affine import AffineTransformer
from pushforward.transforms.transformers.base import Transformer
from pushforward.transforms.validation import image_shape, vector_width

__all__ = ["ConvFunnel", "Funnel", "ImageFunnel"]


@register("transforms")
class Funnel(Transform):
    """z = f(x_kept; network(x_dropped, context)); x_dropped is dropped (Klein et al. 2021, arXiv 2112.08069).

        log p(x) = log p(z) + log p(x_dropped | z) + log abs det dz/dx_kept

    An inference surjection, EXACT: x has a density on R^D, although the rest of the chain has only k coordinates. It is the
    coupling of (x_kept, x_dropped) to (z, x_dropped) followed by a slice of x_dropped. With an additive transformer and
    ``hidden=()`` it is the paper's dense layer z = x_kept + V x_dropped + b. ``decode`` draws x_dropped given z from a
    generator, or uses a value near its median without one, and then inverts f.

    Args:
        features: number of coordinates D.
        keep: the coordinates that are kept, in this order; or k, for the first k.
        transformer: the transformer f, affine by default.
        decoder: p(x_dropped | z) as a bijection of width D - k to a standard normal, whose context is z followed by the
            context; None is a normal with mean and scale from a network.
        hidden: widths of the hidden layers of the network of f.
        decoder_hidden: widths of the hidden layers of the network of the normal decoder.
        residual: residual blocks in the network of f.
        activation: name of the activation function of the network of f.
        dropout: dropout probability in the network of f.
        context: width of the context.

    Raises:
        ConfigError: if nothing is kept or dropped, or the decoder does not fit.
        KindError: if the decoder is not a bijection, or the rest of the chain has no density on R^k.

    Example:
        >>> import torch
        >>> funnel = Funnel(5, keep=2, hidden=(8,), decoder_hidden=(8,))
        >>> step = funnel.encode(torch.randn(3, 5))
        >>> step.z.shape, step.contribution.shape
        (torch.Size([3, 2]), torch.Size([3]))
    """

    def __init__(
        self,
        features: int,
        keep: int | tuple[int, ...] = 1,
        transformer: Transformer | None = None,
        decoder: Transform | None = None,
        *,
        hidden: tuple[int, ...] = (128, 128),
        decoder_hidden: tuple[int, ...] = (64, 64),
        residual: bool = False,
        activation: str = "relu",
        dropout: float = 0.0,
        context: int = 0,
    ) -> None:
        features = vector_width(features, "Funnel")
        kept, dropped = split_coordinates(features, keep, "Funnel")
        super().__init__(features, len(kept))
        check_integer("context", context, 0)
        self.features, self.keep, self.transformer = features, keep, transformer or AffineTransformer()
        self.hidden = check_widths("hidden", hidden)
        self.residual, self.activation, self.dropout = residual, activation, dropout
        self.decoder_hidden, self.context = check_widths("decoder_hidden", decoder_hidden), context
        self.coupling = Coupling(
            features, self.transformer, mask=tuple(dropped), hidden=hidden, residual=residual, activation=activation,
            dropout=dropout, context=context,
        )  # fmt: skip
        self.density = ConditionalDensity(len(dropped), len(kept) + context, decoder, self.decoder_hidden, "Funnel")
        check_reals(self.coupling, "Funnel")
        check_reals(self.density.flow, "Funnel")
        self.register_buffer("kept", torch.tensor(kept))
        self.register_buffer("dropped", torch.tensor(dropped))
        self.register_buffer("inverse_order", inverse_permutation([*kept, *dropped]))

    index_buffers = ("kept", "dropped")
    kept: Tensor
    dropped: Tensor
    inverse_order: Tensor

    @property
    def decoder(self) -> Transform | None:
        """The flow that was given, or None for the default."""
        return self.density.given_flow

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """``(*batch, D)`` to ``(*batch, k)``."""
        transformed, contribution = self.coupling(x, context)
        z = transformed.index_select(-1, self.kept)
        return Step(
            z, contribution + self.density.log_prob(x.index_select(-1, self.dropped), self._condition(z, context))
        )

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Draw the dropped coordinates, or use values near their median without a generator; then invert f."""
        dropped = self.density.draw(self._condition(z, context), noise)
        return self.coupling.decode(torch.cat((z, dropped), -1).index_select(-1, self.inverse_order), context)

    def measure(self, latent: Measure) -> Measure:
        """Lebesgue(k) becomes Lebesgue(D)."""
        return require_lebesgue(latent, self.in_shape[0], "Funnel")

    def _condition(self, z: Tensor, context: Tensor | None) -> Tensor:
        check_context(context, self.context, "Funnel")
        return z if context is None or not self.context else torch.cat((z, context), -1)


@register("transforms")
class ImageFunnel(Transform):
    """z = f(x_kept; network(x_dropped, context)) for the first channels of an image; the others are dropped
    (Klein et al. 2021, arXiv 2112.08069).

        log p(x) = log p(z) + log p(x_dropped | z) + log abs det dz/dx_kept

    An inference surjection, EXACT, (C, H, W) to (k, H, W), made of two couplings: of the kept channels given the dropped ones,
    then of the dropped channels given z, to a standard normal. ``decode`` draws the dropped channels from a generator, or
    uses values near their median without one.

    Args:
        features: (channels, height, width).
        keep: number k of channels that are kept; None is half of them.
        transformer: the transformer f, affine by default.
        decoder: transformer of the dropped pixels given z, affine (which makes their density normal) by default.
        hidden: widths of the convolutional network of f.
        decoder_hidden: widths of the convolutional network of the decoder.
        residual: residual blocks in the network of f.
        activation: name of the activation function of the networks.
        context: width of the context.

    Raises:
        ConfigError: if nothing is kept or dropped, or the parts do not fit.
        KindError: if the rest of the chain has no density on R^(k H W).

    Example:
        >>> import torch
        >>> funnel = ImageFunnel((4, 3, 3), hidden=(8,), decoder_hidden=(8,))
        >>> funnel.encode(torch.randn(2, 4, 3, 3)).z.shape
        torch.Size([2, 2, 3, 3])
    """

    def __init__(
        self,
        features: Shape,
        keep: int | None = None,
        transformer: Transformer | None = None,
        decoder: Transformer | None = None,
        *,
        hidden: tuple[int, ...] = (64, 64),
        decoder_hidden: tuple[int, ...] = (64,),
        residual: bool = False,
        activation: str = "relu",
        context: int = 0,
    ) -> None:
        channels, height, width = image_shape(features, "ImageFunnel")
        kept = channels // 2 if keep is None else check_integer("keep", keep)
        if not 0 < kept < channels:
            raise ConfigError(
                f"ImageFunnel must keep some of its {channels} channels and drop the others; got keep={keep}."
            )
        super().__init__(features, (kept, height, width))
        self.features, self.keep, self.kept = features, keep, kept
        self.transformer, self.decoder = transformer or AffineTransformer(), decoder or AffineTransformer(MAX_LOG_SCALE)
        self.hidden, self.decoder_hidden = (
            check_widths("hidden", hidden),
            check_widths("decoder_hidden", decoder_hidden),
        )
        self.residual, self.activation, self.context = residual, activation, context
        self.coupling = ImageCoupling(
            features, self.transformer, keep=channels - kept, flip=True, hidden=hidden, residual=residual,
            activation=activation, context=context,
        )  # fmt: skip
        self.decoder_coupling = ImageCoupling(
            features, self.decoder, keep=kept, hidden=decoder_hidden, activation=activation, context=context
        )
        check_reals(self.coupling, "ImageFunnel")
        check_reals(self.decoder_coupling, "ImageFunnel")

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """``(*batch, C, H, W)`` to ``(*batch, k, H, W)``."""
        transformed, contribution = self.coupling(x, context)
        both, density = self.decoder_coupling(transformed, context)
        z, e = both[..., : self.kept, :, :], both[..., self.kept :, :, :]
        return Step(z, contribution + density + normal_log_density(e, 3))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Draw the dropped channels, or use values near their median without a generator; then invert f."""
        dropped = z[..., :1, :, :].expand(*z.shape[:-3], self.in_shape[0] - self.kept, *z.shape[-2:])
        both = self.decoder_coupling.decode(torch.cat((z, base_noise(dropped, 3, noise)), -3), context)
        return self.coupling.decode(both, context)

    def measure(self, latent: Measure) -> Measure:
        """Lebesgue(k H W) becomes Lebesgue(C H W)."""
        return require_lebesgue(latent, math.prod(self.in_shape), "ImageFunnel")


@register("transforms")
class ConvFunnel(Transform):
    """A convolution of stride w with kernel w x w as a funnel: (C, H, W) to (C, H / w, W / w) (Klein et al. 2021).

    In each w x w patch the last pixel is kept, x_kept with C channels, and the C (w^2 - 1) other values are dropped:

        z = A x_kept + V x_dropped + b  for every patch;
        log p(x) = log p(z) + log p(x_dropped | z) + H W / w^2 log abs det A.

    So z is a convolution whose kernel is A at its last position and V elsewhere. A is square, in LU form, and its determinant
    counts once for each patch. A convolutional network reads z and gives the distribution of the dropped values. An inference
    surjection, EXACT. ``decode`` draws the dropped values from a generator, or uses values near their median without one.

    Args:
        features: (channels, height, width), with height and width divisible by w.
        window: side w of a patch, at least 2.
        decoder: transformer of the dropped values given z, affine (which makes their density normal) by default.
        hidden: widths of the convolutional network of the decoder.
        kernel_size: size of its convolutions, odd.
        activation: name of its activation function.
        context: width of the context, which the decoder reads.
        seed: seed of the initial rotation A.

    Raises:
        ConfigError: if height or width is not divisible by w, or the transformer does not fit.
        KindError: if the rest of the chain has no density on R^(C H W / w^2).

    Example:
        >>> import torch
        >>> funnel = ConvFunnel((3, 6, 6), window=3, hidden=(8,))
        >>> funnel.encode(torch.randn(2, 3, 6, 6)).z.shape
        torch.Size([2, 3, 2, 2])
    """

    supports_float64 = False
    index_buffers = ("order",)
    order: Tensor

    def __init__(
        self,
        features: Shape,
        window: int = 2,
        decoder: Transformer | None = None,
        *,
        hidden: tuple[int, ...] = (64,),
        kernel_size: int = 3,
        activation: str = "relu",
        context: int = 0,
        seed: int = 0,
    ) -> None:
        channels, height, width = image_shape(features, "ConvFunnel")
        check_integer("window", window, 2)
        if height % window or width % window:
            raise ConfigError(f"window must divide height and width of the image; got {window} for {height} x {width}.")
        small = (height // window, width // window)
        super().__init__(features, (channels, *small))
        self.features, self.window, self.decoder = features, window, decoder or AffineTransformer(MAX_LOG_SCALE)
        self.hidden, self.kernel_size, self.activation = check_widths("hidden", hidden), kernel_size, activation
        self.context, self.seed = context, seed
        self.square = InvertibleConv1x1((channels, *small), seed=seed)
        area = window * window
        self.rest = nn.Conv2d(channels * (area - 1), channels, 1)
        nn.init.normal_(self.rest.weight, std=0.01)
        nn.init.zeros_(self.rest.bias)  # pyright: ignore[reportArgumentType]
        self.decoder_coupling = ImageCoupling(
            (channels * area, *small), self.decoder, keep=channels, hidden=hidden, kernel_size=kernel_size,
            activation=activation, context=context,
        )  # fmt: skip
        check_reals(self.decoder_coupling, "ConvFunnel")
        # The values of a patch are stored channel by channel; the last of each channel comes first.
        index = torch.arange(channels * area).reshape(channels, area)
        self.register_buffer("order", torch.cat((index[:, -1], index[:, :-1].flatten())))

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """``(*batch, C, H, W)`` to ``(*batch, C, H / w, W / w)``."""
        kept, dropped = self._part(self._patches(x).index_select(-3, self.order))
        product, contribution = self.square(kept)
        z = product + self._rest(dropped)
        both, density = self.decoder_coupling(torch.cat((z, dropped), -3), context)
        return Step(z, contribution + density + normal_log_density(self._part(both)[1], 3))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Draw the dropped values, or use values near their median without a generator; then solve for the kept ones."""
        shape = (*z.shape[:-3], self.in_shape[0] * (self.window**2 - 1), *z.shape[-2:])
        e = base_noise(z[..., :1, :, :].expand(shape), 3, noise)
        dropped = self._part(self.decoder_coupling.decode(torch.cat((z, e), -3), context))[1]
        kept = self.square.decode(z - self._rest(dropped))
        patches = torch.cat((kept, dropped), -3).index_select(-3, torch.argsort(self.order))
        w = self.window
        blocks = patches.unflatten(-3, (self.in_shape[0], w, w)).movedim((-4, -3), (-3, -1))
        return blocks.reshape(*z.shape[:-3], *self.in_shape)

    def measure(self, latent: Measure) -> Measure:
        """Lebesgue(C H W / w^2) becomes Lebesgue(C H W)."""
        return require_lebesgue(latent, math.prod(self.in_shape), "ConvFunnel")

    def _patches(self, x: Tensor) -> Tensor:
        """The values of each patch as channels, ``(*batch, C w^2, H / w, W / w)``, channel by channel and row by row."""
        w, (channels, height, width) = self.window, self.out_shape
        blocks = x.reshape(*self.batch_shape(x), channels, height, w, width, w).movedim((-3, -1), (-4, -3))
        return blocks.flatten(-5, -3)

    def _part(self, both: Tensor) -> tuple[Tensor, Tensor]:
        return both[..., : self.in_shape[0], :, :], both[..., self.in_shape[0] :, :, :]

    def _rest(self, dropped: Tensor) -> Tensor:
        rows = self.rest(dropped.reshape(-1, *dropped.shape[-3:]))
        return rows.to(dropped.dtype).reshape(*dropped.shape[:-3], *self.out_shape)
