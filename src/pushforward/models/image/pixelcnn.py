"""PixelCNN: gated (van den Oord et al. 2016, arXiv 1606.05328), and PixelCNN++ (Salimans et al. 2017, arXiv 1701.05517)."""

from __future__ import annotations

import torch
from torch import Tensor

from pushforward import distributions
from pushforward.errors import ConfigError
from pushforward.models.base import Model
from pushforward.models.validation import check_data
from pushforward.numerics.checks import check_choice, check_integer
from pushforward.registry import register
from pushforward.transforms import CategoricalLikelihood, Integers, LogisticLikelihood
from pushforward.transforms.base import Shape

__all__ = ["PixelCNN"]


@register("models")
class PixelCNN(Model):
    """Exact log-probability of integer images: log p(x) = sum_i log p(x_i | x_<i) in raster order (eq. 1).

    ``log_prob`` takes one pass of the network and is EXACT on Counting, so that ``evaluate(x).bits_per_dim()`` is the code
    length; :meth:`conditional_log_prob` gives the term of each pixel and channel. Sampling goes pixel by pixel.

    PixelCNN++ is ``network="plusplus", output="logistic"``; in the paper with 10 components, 160 filters, 5 layers, 3 scales and a
    dropout of 0.5.

    Args:
        shape: (channels, height, width); data are integers 0, ..., levels - 1.
        levels: gray levels.
        context: width of the context, which every gate reads.
        output: "categorical", a softmax over the levels of each channel given those before (van den Oord et al. 2016), or
            "logistic", a mixture of discretized logistics for the whole pixel (PixelCNN++, Salimans et al. 2017).
        components: of the mixture.
        network: "gated", or "plusplus", whose categorical output is for one channel only.
        filters: width of the network's two stacks; with a categorical output a multiple of the channels.
        layers: gated layers; of "plusplus" the blocks at each resolution, on the way down and again on the way up.
        kernel: odd kernel size, of "gated".
        first_kernel: of its first layer.
        scales: resolutions, of "plusplus".
        dropout: probability, in its blocks.

    Raises:
        ConfigError: for another output or network, or impossible sizes.

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
        kernel: int = 3,
        first_kernel: int = 7,
        scales: int = 3,
        dropout: float = 0.0,
    ) -> None:
        check_choice("output", output, ("categorical", "logistic"))
        law = CategoricalLikelihood(levels) if output == "categorical" else LogisticLikelihood(levels, components)
        base = distributions.PixelCNN(
            shape, law, network=network, filters=filters, layers=layers, kernel=kernel, first_kernel=first_kernel,
            scales=scales, dropout=dropout, context=context,
        )  # fmt: skip
        super().__init__(Integers(shape, levels), base)
        self.levels, self.context, self.output, self.components = levels, context, output, components
        self.network, self.filters, self.layers, self.kernel = network, filters, layers, kernel
        self.first_kernel, self.scales, self.dropout = first_kernel, scales, dropout

    def inpaint(
        self,
        x: Tensor,
        rows: int,
        context: Tensor | None = None,
        *,
        seed: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Images with the first rows of x, and the others drawn from their distribution given these.

        Args:
            x: images, ``(*batch, *shape)``; only their first rows are read.
            rows: how many rows to keep, 0 to height.
            context: ``(*batch, context)`` where the model has one.
            seed: makes the draw reproducible; or pass a ``generator``.

        Returns:
            ``(*batch, *shape)``.

        Raises:
            ConfigError: for a number of rows that the image does not have, or both a seed and a generator.
            InputError: for a wrong shape, or kept rows that are no integers in range.
        """
        check_data(x, self.shape, type(self).__name__)
        check_integer("rows", rows, 0, most=self.shape[1])
        if seed is not None and generator is not None:
            raise ConfigError("give a seed or a generator, not both.")
        if generator is None:
            generator = torch.Generator(x.device).manual_seed(
                int(torch.randint(2**62, ()).item()) if seed is None else seed
            )
        context = self._broadcast(context, x.shape[:-3])
        return self.base.complete(x[..., :rows, :].to(self.latent_dtype), context, generator=generator)
