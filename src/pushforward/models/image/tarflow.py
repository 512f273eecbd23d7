"""Transformer autoregressive flow (Zhai, Zhang, Nakkiran et al. 2024, arXiv 2412.06329), in a small form."""

from __future__ import annotations

from pushforward.distributions import Normal
from pushforward.models.base import Model
from pushforward.numerics.checks import check_integer
from pushforward.registry import register
from pushforward.transforms import (
    AffineTransformer,
    Jitter,
    Logit,
    Patches,
    Standardize,
    TokenAutoregressive,
    Transform,
    UniformDequantize,
)
from pushforward.transforms.base import Shape
from pushforward.transforms.chain import Chain

__all__ = ["TarFlow"]


@register("models")
class TarFlow(Model):
    """Image flow of causal transformers over patches: z_i = x_i exp(s_i) + t_i, (s_i, t_i) = transformer(x_<i) (eq. 5-7).

    Blocks go through the patches in alternating order (sec. 3.1). ``log_prob`` takes one pass a block and is the fast
    direction; sampling takes a step for each patch and block, with keys and values kept.

    Integers are dequantized, and the bound is LOWER_BOUND on Counting, so bits/dim are defined. With ``levels=None`` data are real
    and the density is exact on Lebesgue. ``noise`` is added in training only: the model then learns the density of noised
    images, as the paper does for samples (sec. 3.2), and its number at clean ones should not be put beside that of a model
    trained without.

    Args:
        shape: (channels, height, width).
        patch: side of a patch, which divides height and width.
        levels: gray levels of integer data; None for real data.
        context: width of the context, which every block reads.
        blocks: autoregressive transforms.
        layers: transformer layers in each.
        width: of the transformers.
        heads: of their attention.
        noise: standard deviation of the training noise, in units of the standardized input.
        max_log_scale: bound on |s|.
        standardize: standardize each coordinate; after the logit, where data are integers.

    Raises:
        ConfigError: for impossible sizes.

    Example:
        >>> import torch
        >>> model = TarFlow((1, 4, 4), patch=2, levels=None, blocks=2, width=16)
        >>> x = torch.randn(3, 1, 4, 4)
        >>> torch.allclose(model.decode(model.encode(x)), x, atol=1e-4)
        True
    """

    def __init__(
        self,
        shape: Shape,
        patch: int = 4,
        levels: int | None = 256,
        context: int = 0,
        *,
        blocks: int = 4,
        layers: int = 2,
        width: int = 64,
        heads: int = 4,
        noise: float = 0.0,
        max_log_scale: float = 3.0,
        standardize: bool = True,
    ) -> None:
        check_integer("levels", levels, 2, optional=True)
        cut = Patches(shape, patch)
        transforms: list[Transform] = [] if levels is None else [UniformDequantize(shape, levels), Logit(shape)]
        transforms += [Standardize(shape)] if standardize else []
        transforms += [Jitter(shape, noise), cut]
        law = AffineTransformer(max_log_scale)
        for k in range(check_integer("blocks", blocks)):
            transforms.append(
                TokenAutoregressive(
                    cut.out_shape, law, flip=k % 2 == 1, width=width, layers=layers, heads=heads, context=context
                )
            )
        super().__init__(Chain(*transforms), Normal(cut.out_shape))
        self.patch, self.levels, self.context, self.blocks = patch, levels, context, blocks
        self.layers, self.width, self.heads, self.noise = layers, width, heads, noise
        self.max_log_scale, self.standardize = max_log_scale, standardize
