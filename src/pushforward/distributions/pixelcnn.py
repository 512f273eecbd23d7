"""PixelCNN: an exact distribution of images, pixel after pixel."""

from __future__ import annotations

import math

import torch
from torch import Size, Tensor

from pushforward.distributions.base import Distribution
from pushforward.errors import ConfigError, InputError
from pushforward.likelihood import Measure
from pushforward.networks.pixelcnn import GatedPixelCNN
from pushforward.networks.pixelcnn_plusplus import PixelCNNPlusPlus
from pushforward.networks.pixelcnn_plusplus_sampler import PixelCNNPlusPlusSampler
from pushforward.networks.pixelcnn_sampler import PixelCNNSampler
from pushforward.numerics import may_check_values, split_infinite, sum_event
from pushforward.registry import register
from pushforward.transforms.base import Shape, check_context
from pushforward.transforms.stochastic.discrete_likelihoods import CategoricalLikelihood
from pushforward.transforms.stochastic.likelihoods import Likelihood, check_likelihood

__all__ = ["PixelCNN"]


@register("distributions")
class PixelCNN(Distribution):
    """log p(x) = sum over pixels, in raster order, and channels of log p(x_i | x_<i) (van den Oord et al. 2016, eq. 1-2).

    A gated PixelCNN (arXiv 1606.05328) or the network of PixelCNN++ (arXiv 1701.05517) gives the raw parameters of the law of
    a pixel. For laws of independent channels, as the categorical one, the gated network also sees the channels before in the same
    pixel; mixtures of discretized logistics (PixelCNN++) tie the channels of a pixel themselves. ``log_prob`` takes one pass and
    is exact; sampling goes pixel by pixel with the arithmetic of about one pass, and carries no gradient.

    With a discrete law it is a distribution of integers; with a continuous one, as
    :class:`~pushforward.transforms.GaussianMixtureLikelihood`, a density on the reals: of codes on a grid, say.

    Args:
        shape: (channels, height, width).
        likelihood: the law of one pixel; 256-way categorical by default.
        network: "gated" or "plusplus" (:class:`~pushforward.networks.pixelcnn_plusplus.PixelCNNPlusPlus`).
        filters: width of the network's stacks.
        layers: gated layers; of "plusplus" the blocks at each resolution.
        kernel: odd kernel size; of "gated", as the next.
        first_kernel: of the first layer.
        scales: resolutions of "plusplus".
        dropout: probability, in the blocks of "plusplus".
        context: width of the context; 0 for none.

    Raises:
        ConfigError: if the shape is no image, a size is impossible, or "plusplus" meets several channels that the law does
            not tie.

    Example:
        >>> import torch
        >>> from pushforward.transforms import CategoricalLikelihood
        >>> base = PixelCNN((1, 4, 4), CategoricalLikelihood(8), filters=8, layers=2)
        >>> base.log_prob(base.sample(torch.Size([3]))).shape
        torch.Size([3])
    """

    has_rsample = False

    def __init__(
        self,
        shape: Shape,
        likelihood: Likelihood | None = None,
        *,
        network: str = "gated",
        filters: int = 32,
        layers: int = 5,
        kernel: int = 3,
        first_kernel: int = 7,
        scales: int = 3,
        dropout: float = 0.0,
        context: int = 0,
    ) -> None:
        super().__init__(shape)
        if len(self.shape) != 3:
            raise ConfigError(f"PixelCNN reads images, so shape must be (channels, height, width); got {shape!r}.")
        channels, height, width = self.shape
        self.likelihood = check_likelihood(likelihood or CategoricalLikelihood())
        self.network, self.filters, self.layers = network, filters, layers
        self.kernel, self.first_kernel = kernel, first_kernel
        self.scales, self.dropout, self.context = scales, dropout, context
        self.support = self.likelihood.support
        self.sample_passes = height * width * (1 if self.likelihood.joint else channels)
        image, outputs = (channels, height, width), self.likelihood.outputs(channels)
        if network == "gated":
            if dropout:
                raise ConfigError("dropout is in the blocks of the network 'plusplus'; 'gated' has none.")
            self.conditioner = GatedPixelCNN(
                image,
                outputs,
                ordered=not self.likelihood.joint,
                filters=filters,
                layers=layers,
                kernel=kernel,
                first_kernel=first_kernel,
                context=context,
            )
        elif network == "plusplus":
            if channels > 1 and not self.likelihood.joint:
                raise ConfigError(
                    f"the network 'plusplus' sees nothing of its own pixel, so the {channels} channels need a law that ties them, as "
                    "LogisticLikelihood (output='logistic'); or take 'gated'."
                )
            self.conditioner = PixelCNNPlusPlus(
                image, outputs, filters=filters, layers=layers, scales=scales, dropout=dropout, context=context
            )
        else:
            raise ConfigError(f"network must be 'gated' or 'plusplus'; got {network!r}.")

    @property
    def measure(self) -> Measure:
        """Counting for a discrete law, else Lebesgue."""
        return self.likelihood.measure(math.prod(self.shape))

    @property
    def discrete(self) -> bool:
        """Whether pixels are integers."""
        return self.likelihood.measure(1).name == "Counting"

    @property
    def autoregressive_order(self) -> tuple[int, ...]:
        """Raster order, the channels of a pixel one after the other."""
        channels, height, width = self.shape
        return tuple(torch.arange(channels * height * width).reshape(channels, -1).t().flatten().tolist())

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-probability or log-density, nats: ``(*batch, *shape)`` to ``batch``; -inf where z is outside of the support."""
        if self.discrete:
            return sum_event(self.log_prob_terms(z, context), 3)
        z, far = split_infinite(z, 3)
        return far + sum_event(self.log_prob_terms(z, context), 3)

    def log_prob_terms(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Terms of the chain rule, log p(x_i | x_<i, context), ``(*batch, *shape)``."""
        check_context(context, self.context, "PixelCNN")
        batch = z.shape[:-3]
        z = z.reshape(-1, *self.shape)
        raw = self.conditioner(self.likelihood.seen(z), self._flat(context, batch)).to(z.dtype)
        terms = self.likelihood.log_prob(z.movedim(1, -1), raw.movedim(1, -1)).movedim(-1, 1)
        return terms.reshape(*batch, *self.shape)

    @torch.no_grad()
    def sample(self, batch: Size, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """``(*batch, *shape)``, pixel after pixel."""
        empty = torch.empty((*batch, self.shape[0], 0, self.shape[2]), **self.like(generator))
        return self.complete(empty, context, generator=generator)

    @torch.no_grad()
    def complete(
        self, top: Tensor, context: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Images whose first rows are given and whose others are sampled given these, ``(*batch, *shape)``.

        Args:
            top: the first rows, ``(*batch, channels, rows, width)``, of 0 to ``height`` rows.
            context: ``(*batch, context)``.
            generator: of the draws.

        Raises:
            InputError: if the rows do not fit, or are not in the support.
        """
        check_context(context, self.context, "PixelCNN")
        channels, height, width = self.shape
        batch, given = top.shape[:-3], top.shape[-2] if top.dim() > 2 else -1
        if top.shape[-3:] != (channels, given, width) or not 0 <= given <= height:
            raise InputError(
                f"the rows to complete have shape (*batch, {channels}, rows, {width}) with at most {height} rows; got "
                f"{tuple(top.shape)}."
            )
        law, top = self.likelihood, top.reshape(math.prod(batch), channels, given, width)
        whole = top == torch.floor(top) if self.discrete else torch.isfinite(top)
        if may_check_values(top) and not (whole & self.support.contains(top)).all():
            kind = "integers" if self.discrete else "finite numbers"
            raise InputError(f"the rows to complete hold something else than {kind} in {self.support}.")
        # One array of noise decides all: an image is a function of it, whatever the way it is computed.
        noise = torch.rand(
            (len(top), height - given, width, law.draws(channels)), generator=generator, **self.like(generator)
        )
        x = torch.cat((top.to(noise.dtype), noise.new_zeros(len(top), channels, height - given, width)), 2)
        with torch.autocast(noise.device.type, enabled=False):
            walk = self._walk(len(top), self._flat(context, batch), noise)
            for row in range(height):
                walk.start_row()
                if row < given:
                    walk.end_row(law.seen(x[:, :, row]))
                    continue
                for column in range(width):
                    x[:, :, row, column] = self._draw(walk, column, noise[:, row - given, column])
                walk.end_row()
        return x.reshape(*batch, *self.shape)

    def _walk(self, rows: int, context: Tensor | None, like: Tensor) -> PixelCNNSampler | PixelCNNPlusPlusSampler:
        if isinstance(self.conditioner, GatedPixelCNN):
            return PixelCNNSampler(self.conditioner, rows, context, like)
        return PixelCNNPlusPlusSampler(self.conditioner, rows, context, like)

    def _draw(self, walk: PixelCNNSampler | PixelCNNPlusPlusSampler, column: int, u: Tensor) -> Tensor:
        """The pixel in this column, ``(n, channels)``; where the network orders the channels, one after the other."""
        law, channels = self.likelihood, self.shape[0]
        if law.joint:
            pixel = law.sample(walk.pixel(column), u)
        else:
            pixel = torch.zeros_like(u)
        for channel in range(channels):
            if not law.joint:
                raw = walk.pixel(column).chunk(channels, -1)[channel]
                pixel[:, channel] = law.sample(raw, u[:, channel : channel + 1]).squeeze(-1)
            walk.put(column, channel, law.seen(pixel[:, channel]))
        return pixel

    def _flat(self, context: Tensor | None, batch: Size) -> Tensor | None:
        """The context as ``(n, context)``; None if the base reads none."""
        if not self.context or context is None:
            return None
        return context.expand(*batch, self.context).reshape(-1, self.context)
