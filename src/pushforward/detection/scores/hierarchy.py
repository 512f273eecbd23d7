"""Likelihood ratio within a hierarchical latent-variable model (Havtorn et al. 2021)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pushforward.detection.scores.base import Score
from pushforward.detection.scores.model_outputs import check_model, far_rows
from pushforward.errors import ConfigError
from pushforward.models import Model
from pushforward.numerics import RowNoise, cast_finite, sum_event
from pushforward.numerics.checks import check_integer
from pushforward.registry import register
from pushforward.transforms import Transform, Variational
from pushforward.transforms.base import outside

__all__ = ["HierarchicalRatio"]


@register("scores")
class HierarchicalRatio(Score):
    """LLR>k = L(x) - L>k(x), nats: the loss in the evidence bound if the low-level latents are not inferred from x (Havtorn et
    al. 2021, arXiv 2102.08248).

    The model has latent variables z_1, ..., z_n, each encoded from the previous one, and L is its evidence bound. L>k draws
    z_{k+1}, ..., z_n from the posterior and sets z_k, ..., z_1 to approximately the medians of p(z_k | z_{k+1}), ...,
    p(z_1 | z_2); the prior and posterior terms of these latents cancel. So

    LLR>k = sum_{j<=k} log p(z_j | z_{j+1}) - sum_{j<k} log q(z_{j+1} | z_j) - log p(x | z_1 from z_{k+1}), with z_0 = x.

    Out-of-distribution inputs are reconstructed mainly from low-level latents, so they score high.

    Args:
        model: model whose chain has at least k + 1 :class:`~pushforward.transforms.Variational` transforms, possibly with
            bijections between them.
        k: number of latents that are decoded from z_{k+1} rather than inferred, from 1 to n - 1.
        samples: number of posterior draws over which the ratio is averaged.

    Raises:
        ConfigError: for a model with too few latent variables, or with a context.

    Example:
        >>> import torch
        >>> from pushforward import distributions, transforms, models
        >>> from pushforward.detection.scores import HierarchicalRatio
        >>> chain = transforms.Chain(transforms.Variational(6, 3, hidden=(8,)), transforms.Variational(3, 2, hidden=(8,)))
        >>> HierarchicalRatio(models.Flow(chain, distributions.Normal(2)))(torch.randn(4, 6)).shape
        torch.Size([4])
    """

    def __init__(self, model: Model, k: int = 1, samples: int = 1) -> None:
        super().__init__()
        check_model(model, "HierarchicalRatio", context=False)
        check_integer("samples", samples)
        latents = sum(isinstance(part, Variational) for part in model.chain)
        if not isinstance(k, int) or isinstance(k, bool) or not 1 <= k < latents:
            raise ConfigError(
                f"k must be an integer from 1 to the number of latent variables minus 1; got {k!r}, and this model has {latents}: "
                "use a smaller k or a chain of more Variational transforms."
            )
        self.model, self.k, self.samples = model, k, samples

    def _score(self, x: Tensor) -> Tensor:
        far = far_rows(x)
        x = cast_finite(torch.where(torch.isinf(x), 0.0, x), self.model.dtype)
        ratio = torch.stack([self._ratio(x, RowNoise(0, draw)) for draw in range(self.samples)]).mean(0)
        return torch.where(far | torch.isnan(ratio), math.inf, ratio)

    def _ratio(self, x: Tensor, noise: RowNoise) -> Tensor:
        parts = list(self.model.chain)
        latent = [index for index, part in enumerate(parts) if isinstance(part, Variational)]
        first, last = latent[0], latent[self.k]  # the transforms to z_1 and to z_{k+1}
        total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        data = z = self.model.chain[:first].encode(x, noise=noise).z
        for index, part in enumerate(parts[first : last + 1], start=first):
            if isinstance(part, Variational):
                drawn = part.draw(z, noise)
                total += drawn.log_p.double() - (drawn.log_q.double() if index < last else 0.0)
                z = drawn.z
            else:
                step = part.encode(z, noise=noise)
                total += step.contribution.double()
                z = step.z
        z = self.model.chain[first + 1 : last + 1].decode(z)
        return total - _log_p(parts[first], data, z)


def _log_p(part: Transform, x: Tensor, z: Tensor) -> Tensor:
    """log p(x | z), float64."""
    assert isinstance(part, Variational)
    pixels = x.unsqueeze(-1) if len(part.in_shape) == 1 else x.movedim(-3, -1)
    terms = part.likelihood.log_prob(pixels, part.raw(z)).double()
    return sum_event(terms, len(part.space) + 1) + outside(x, part.domain, len(part.in_shape))
