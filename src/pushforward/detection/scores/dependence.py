"""Correlation between neighboring latents."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pushforward.detection.batching import by_batches
from pushforward.detection.scores.model_outputs import check_model, far_rows, finite_reference, latents
from pushforward.detection.scores.scales import latent_blocks
from pushforward.detection.scores.two_sided import TwoSidedScore
from pushforward.errors import ConfigError
from pushforward.models import Model
from pushforward.registry import register

__all__ = ["LatentDependence", "neighbor_correlation"]


def neighbor_correlation(z: Tensor, blocks: list[tuple[int, ...]]) -> Tensor:
    """Correlation over pairs (a, b) of neighbors: ``sum a b / (sum (a^2 + b^2) / 2)``, in [-1, 1], ``(n,)``.

    In a block of shape (C, H, W) neighbors are horizontally or vertically adjacent pixels; in a block of shape (D,) they are
    consecutive coordinates.

    Args:
        z: centered latents, ``(n, D)``.
        blocks: shapes of the blocks that are concatenated in z.
    """
    rows = z.shape[0]  # len would fix the number of rows of a graph
    products, squares = z.new_zeros(rows), z.new_zeros(rows)
    sizes = [math.prod(block) for block in blocks]
    for part, block in zip(z.split(sizes, 1), blocks, strict=True):
        image = part.reshape(rows, *block)
        for dim in (-1, -2) if len(block) == 3 else (-1,):
            length = image.shape[dim]
            if length > 1:
                before, after = image.narrow(dim, 0, length - 1), image.narrow(dim, 1, length - 1)
                products += (before * after).flatten(1).sum(1)
                squares += (before.square() + after.square()).flatten(1).sum(1) / 2
    return torch.where(squares > 0, products / squares, 0.0)


@register("scores")
class LatentDependence(TwoSidedScore):
    """Two-sided score of the correlation of neighboring latents: ``-log(2 min(p_low, p_high))`` of its rank.

    r = sum z_i z_j / (sum (z_i^2 + z_j^2) / 2) over pairs of neighbors, where each coordinate of z is standardized on the
    reference rows. If z is an image, neighbors are horizontally or vertically adjacent pixels, within each scale of a
    multi-scale flow. If z is a vector, neighbors are consecutive coordinates.

    The latents of out-of-distribution images keep image structure that the norm of z does not detect (Kirichenko et al.
    2020, arXiv 2006.08545). r does not depend on the norm of z.

    Args:
        model: model whose latents have at least one pair of neighbors.

    Raises:
        ConfigError: if there are no neighbors.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.detection.scores import LatentDependence
        >>> model = pf.models.Flow(pf.transforms.Affine(8), pf.distributions.Normal(8))
        >>> score = LatentDependence(model).fit(torch.randn(99, 8))
        >>> score(torch.ones(1, 8)) > 2
        tensor([True])
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = check_model(model, "LatentDependence")
        self.blocks = latent_blocks(model.chain, model.shape)
        if not any(length > 1 for block in self.blocks for length in block[-2:]):
            raise ConfigError(
                f"LatentDependence needs latents with neighbors; the latents of this model have the shapes {self.blocks}."
            )
        self.declare(mean=1, scale=1)

    mean: Tensor
    scale: Tensor

    def _learn(self, reference: Tensor) -> None:
        finite_reference(reference, "the input")
        z = by_batches(lambda part: latents(self.model, part), reference, self.batch_size)
        spread = z.std(0, correction=0)
        self.mean, self.scale = z.mean(0), torch.where(spread > 0, spread, 1.0)
        super()._learn(reference)

    def _number(self, x: Tensor) -> Tensor:
        z = (latents(self.model, x) - self.mean) / self.scale
        return torch.where(far_rows(x), math.inf, neighbor_correlation(z, self.blocks))
