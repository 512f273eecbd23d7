"""Gated PixelCNN (van den Oord et al. 2016, arXiv 1606.05328) and PixelCNN++ (Salimans et al. 2017, arXiv 1701.05517)."""

from __future__ import annotations

import torch
from torch import Tensor

from pushforward import distributions
from pushforward.models.base import Model
from pushforward.models.sampling import seeded_generator
from pushforward.models.validation import check_shape
from pushforward.numerics.checks import check_choice, check_integer
from pushforward.registry import register
from pushforward.transforms import CategoricalLikelihood, Integers, LogisticLikelihood
from pushforward.transforms.base import Shape

__all__ = ["PixelCNN"]


@register("models")
class PixelCNN(Model):
    """Exact log-probability of integer images: log p(x) = sum_i log p(x_i | x_<i) in raster order (eq. 1).

    ``log_prob`` takes one pass of the network and is EXACT on Counting, so ``evaluate(x).bits_per_dim()`` is the code
    length. :meth:`conditional_log_prob` gives the term of each pixel and channel. Sampling draws one pixel after
    another.

    PixelCNN++ is ``network="plusplus", output="logistic"``; the paper has 10 components, 160 filters, 5 layers, 3
    scales and a dropout of 0.5.

    Args:
        shape: (channels, height, width); data are integers 0, ..., levels - 1.
        levels: number of gray levels.
        context: width of the context that every gate reads.
        output: "categorical", a softmax over the levels of each channel given the channels before it (van den Oord et
            al. 2016), or "logistic", a mixture of discretized logistics for the whole pixel (PixelCNN++, Salimans et
            al. 2017).
        components: number of components of the mixture.
        network: "gated", or "plusplus", which has a categorical output for one channel only.
        filters: width of the two stacks of the network; with a categorical output a multiple of the channels.
        layers: number of gated layers; for "plusplus" the number of blocks at each resolution in each half of the
            network.
        kernel_size: odd size of the convolutions of "gated".
        first_kernel_size: odd size of the first convolution of "gated".
        scales: number of resolutions of "plusplus".
        dropout: dropout probability in the blocks of "plusplus".

    Raises:
        ConfigError: for an unknown output or network, or sizes that are not possible.

    Example:
        >>> import torch
        >>> model = PixelCNN((1, 6, 6), levels=4, filters=8, layers=2)
        >>> x = model.sample(2, seed=0)
        >>> model.evaluate(x).bits_per_dim().shape
        torch.Size([2])
        >>> torch.equal(model.inpaint(x, rows=6), x)
        True
    """

    base: distributions.PixelCNN

    def __init__(
        self,
        shape: Shape,
        levels: int = 256,
        context: int = 0,
        *,
        output: str = "categorical",
        components: int = 10,
        network: str = "gated",
        filters: int = 48,
        layers: int = 6,
        kernel_size: int = 3,
        first_kernel_size: int = 7,
        scales: int = 3,
        dropout: float = 0.0,
    ) -> None:
        check_choice("output", output, ("categorical", "logistic"))
        check_integer("components", components)
        check_integer("scales", scales)
        pixel = CategoricalLikelihood(levels) if output == "categorical" else LogisticLikelihood(levels, components)
        base = distributions.PixelCNN(
            shape, pixel, network=network, filters=filters, layers=layers, kernel_size=kernel_size,
            first_kernel_size=first_kernel_size, scales=scales, dropout=dropout, context=context,
        )  # fmt: skip
        super().__init__(Integers(shape, levels), base)
        self.levels, self.context, self.output, self.components = levels, context, output, components
        self.network, self.filters, self.layers, self.kernel_size = network, filters, layers, kernel_size
        self.first_kernel_size, self.scales, self.dropout = first_kernel_size, scales, dropout

    def inpaint(
        self,
        x: Tensor,
        rows: int,
        context: Tensor | None = None,
        *,
        seed: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Images with the first rows of x; the other rows are drawn from their distribution given these.

        Args:
            x: images, ``(*batch, *shape)``; only the first rows are read.
            rows: number of rows to keep, 0 to height.
            context: ``(*batch, context)``, for a model with a context.
            seed: makes the draw reproducible.
            generator: generator to draw from instead of a seed.

        Returns:
            ``(*batch, *shape)``.

        Raises:
            ConfigError: for more rows than the image has, or both a seed and a generator.
            InputError: for a wrong shape, or kept rows with values that are no integers in 0..levels - 1.
        """
        check_shape(x, self.shape, type(self).__name__)
        check_integer("rows", rows, 0, most=self.shape[1])
        generator = seeded_generator(seed, generator, x.device)
        context = self.prepare_context(context, x.shape[:-3])
        return self.base.complete(x[..., :rows, :].to(self.latent_dtype), context, generator=generator)
