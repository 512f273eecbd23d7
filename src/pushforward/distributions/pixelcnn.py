"""PixelCNN: an autoregressive distribution of the pixels of an image."""

from __future__ import annotations

import math

import torch
from torch import Size, Tensor

from pushforward.distributions.base import Distribution, check_batch
from pushforward.errors import ConfigError, InputError
from pushforward.likelihood import Measure
from pushforward.networks.pixelcnn import GatedPixelCNN
from pushforward.networks.pixelcnn_plusplus import PixelCNNPlusPlus
from pushforward.networks.pixelcnn_plusplus_sampler import PixelCNNPlusPlusSampler
from pushforward.networks.pixelcnn_sampler import PixelCNNSampler
from pushforward.numerics import check_choice, check_integer, may_check_values, split_infinite, sum_event
from pushforward.registry import register
from pushforward.transforms.base import Shape, check_event
from pushforward.transforms.stochastic.discrete_likelihoods import CategoricalLikelihood
from pushforward.transforms.stochastic.likelihoods import Likelihood, check_likelihood

__all__ = ["PixelCNN"]


@register("distributions")
class PixelCNN(Distribution):
    """log p(x) = sum over pixels, in raster order, and channels of log p(x_i | x_<i) (van den Oord et al. 2016, eq. 1-2).

    A gated PixelCNN (arXiv 1606.05328) or the network of PixelCNN++ (arXiv 1701.05517) computes the parameters of the
    distribution of each pixel. If that distribution has independent channels, like the categorical one, the gated network also
    sees the earlier channels of the same pixel; the mixture of discretized logistics (PixelCNN++) models the dependence of the
    channels itself. ``log_prob`` takes one pass and is exact. Sampling goes pixel by pixel with the arithmetic of about one
    pass, and samples have no gradients.

    With a discrete likelihood it is a distribution of integers; with a continuous one, such as
    :class:`~pushforward.transforms.GaussianMixtureLikelihood`, it is a density on the reals, for example of a grid of codes.

    Args:
        shape: (channels, height, width).
        likelihood: distribution of one pixel; categorical with 256 levels by default.
        network: "gated" or "plusplus" (:class:`~pushforward.networks.pixelcnn_plusplus.PixelCNNPlusPlus`).
        filters: width of the network's stacks.
        layers: number of gated layers; for "plusplus", of blocks at each resolution.
        kernel_size: odd kernel size, for "gated".
        first_kernel_size: odd kernel size of the first layer, for "gated".
        scales: number of resolutions, for "plusplus".
        dropout: probability in the blocks, for "plusplus".
        context: width of the context; 0 for none.

    Raises:
        ConfigError: if the shape is not an image, a size is impossible, or "plusplus" is given several channels and a likelihood
            of independent channels.

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
        kernel_size: int = 3,
        first_kernel_size: int = 7,
        scales: int = 3,
        dropout: float = 0.0,
        context: int = 0,
    ) -> None:
        super().__init__(shape)
        if len(self.shape) != 3:
            raise ConfigError(
                f"PixelCNN is a distribution of images, so shape must be (channels, height, width); got {shape!r}."
            )
        channels, height, width = self.shape
        check_integer("scales", scales)
        self.likelihood = check_likelihood(likelihood or CategoricalLikelihood())
        self.network, self.filters, self.layers = network, filters, layers
        self.kernel_size, self.first_kernel_size = kernel_size, first_kernel_size
        self.scales, self.dropout, self.context = scales, dropout, context
        self.support = self.likelihood.support
        self.sample_passes = height * width * (1 if self.likelihood.joint else channels)
        image, outputs = (channels, height, width), self.likelihood.outputs(channels)
        check_choice("network", network, ("gated", "plusplus"))
        if network == "gated":
            if dropout:
                raise ConfigError("only the network 'plusplus' has dropout: set dropout=0 for 'gated'.")
            self.conditioner = GatedPixelCNN(
                image,
                outputs,
                ordered=not self.likelihood.joint,
                filters=filters,
                layers=layers,
                kernel_size=kernel_size,
                first_kernel_size=first_kernel_size,
                context=context,
            )
        else:
            if channels > 1 and not self.likelihood.joint:
                raise ConfigError(
                    f"the network 'plusplus' needs a likelihood that models the dependence of the {channels} channels of a pixel, "
                    "such as LogisticLikelihood (output='logistic'): use that, or the network 'gated'."
                )
            self.conditioner = PixelCNNPlusPlus(
                image, outputs, filters=filters, layers=layers, scales=scales, dropout=dropout, context=context
            )

    @property
    def measure(self) -> Measure:
        """Counting for a discrete likelihood, else Lebesgue."""
        return self.likelihood.measure(math.prod(self.shape))

    @property
    def discrete(self) -> bool:
        """Whether pixels are integers."""
        return self.likelihood.measure(1).name == "Counting"

    @property
    def autoregressive_order(self) -> tuple[int, ...]:
        """Raster order of the pixels, and the channels of a pixel one after the other."""
        channels, height, width = self.shape
        return tuple(torch.arange(channels * height * width).reshape(channels, -1).t().flatten().tolist())

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-probability or log-density, nats: ``(*batch, *shape)`` to ``batch``; -inf if z is outside the support."""
        check_event(z, self.shape, type(self).__name__)
        if self.discrete:
            return sum_event(self.log_prob_terms(z, context), 3)
        z, far = split_infinite(z, 3)
        return far + sum_event(self.log_prob_terms(z, context), 3)

    def log_prob_terms(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Terms of the chain rule of probability, log p(x_i | x_<i, context), ``(*batch, *shape)``."""
        check_event(z, self.shape, type(self).__name__)
        batch = z.shape[:-3]
        context = self._flat(context, batch)
        z = z.reshape(-1, *self.shape)
        z = z if z.is_floating_point() else z.to(self.anchor.dtype)
        seen = self.likelihood.network_input(z).to(self.anchor.dtype)  # z may be float64 with float32 weights
        raw = self.conditioner(seen, context).to(z.dtype)
        terms = self.likelihood.log_prob(z.movedim(1, -1), raw.movedim(1, -1)).movedim(-1, 1)
        return terms.reshape(*batch, *self.shape)

    @torch.no_grad()
    def sample(self, batch: Size, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """``(*batch, *shape)``, one pixel after the other."""
        empty = torch.empty((*batch, self.shape[0], 0, self.shape[2]), **self.like(generator))
        return self.complete(empty, context, generator=generator)

    @torch.no_grad()
    def complete(
        self, top: Tensor, context: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Images ``(*batch, *shape)`` with given first rows, and the other rows sampled given these.

        Args:
            top: the first rows, ``(*batch, channels, rows, width)``, of 0 to ``height`` rows.
            context: ``(*batch, context)``.
            generator: of the draws.

        Raises:
            InputError: if the rows have a wrong shape, or are not in the support.
        """
        channels, height, width = self.shape
        batch, given = top.shape[:-3], top.shape[-2] if top.dim() > 2 else -1
        if top.shape[-3:] != (channels, given, width) or not 0 <= given <= height:
            raise InputError(
                f"the rows to complete have shape (*batch, {channels}, rows, {width}) with at most {height} rows; got "
                f"{tuple(top.shape)}."
            )
        context = self._flat(context, batch)
        likelihood, top = self.likelihood, top.reshape(math.prod(batch), channels, given, width)
        whole = top == torch.floor(top) if self.discrete else torch.isfinite(top)
        if may_check_values(top) and not (whole & self.support.contains(top)).all():
            low, high = self.support.low, self.support.high
            kind = f"integers from {low:g} to {high:g}" if self.discrete else f"finite numbers from {low:g} to {high:g}"
            raise InputError(f"the rows to complete must be {kind}.")
        # All noise is drawn first, so that an image is the same however it is computed from the noise.
        noise = torch.rand(
            (len(top), height - given, width, likelihood.draws(channels)), generator=generator, **self.like(generator)
        )
        x = torch.cat((top.to(noise.dtype), noise.new_zeros(len(top), channels, height - given, width)), 2)
        with torch.autocast(noise.device.type, enabled=False):
            sampler = self._sampler(len(top), context, noise)
            for row in range(height):
                sampler.start_row()
                if row < given:
                    sampler.end_row(likelihood.network_input(x[:, :, row]))
                    continue
                for column in range(width):
                    x[:, :, row, column] = self._draw(sampler, column, noise[:, row - given, column])
                sampler.end_row()
        return x.reshape(*batch, *self.shape)

    def _sampler(self, rows: int, context: Tensor | None, like: Tensor) -> PixelCNNSampler | PixelCNNPlusPlusSampler:
        if isinstance(self.conditioner, GatedPixelCNN):
            return PixelCNNSampler(self.conditioner, rows, context, like)
        return PixelCNNPlusPlusSampler(self.conditioner, rows, context, like)

    def _draw(self, sampler: PixelCNNSampler | PixelCNNPlusPlusSampler, column: int, u: Tensor) -> Tensor:
        """The pixel in this column, ``(n, channels)``; channel by channel if the network orders the channels."""
        likelihood, channels = self.likelihood, self.shape[0]
        if likelihood.joint:
            pixel = likelihood.sample(sampler.pixel(column), u)
        else:
            pixel = torch.zeros_like(u)
        for channel in range(channels):
            if not likelihood.joint:
                raw = sampler.pixel(column).chunk(channels, -1)[channel]
                pixel[:, channel] = likelihood.sample(raw, u[:, channel : channel + 1]).squeeze(-1)
            sampler.put(column, channel, likelihood.network_input(pixel[:, channel]))
        return pixel

    def _flat(self, context: Tensor | None, batch: Size) -> Tensor | None:
        """The context as ``(n, context)`` in the type of the weights; None if there is none."""
        check_batch(context, self.context, batch, "PixelCNN")
        if not self.context or context is None:
            return None
        return context.expand(*batch, self.context).reshape(-1, self.context).to(self.anchor.dtype)
