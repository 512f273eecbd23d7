"""Likelihood ratio against a general model, for one scale of a multi-scale flow (Schirrmeister et al. 2020)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pushforward.detection.scores.base import Score
from pushforward.detection.scores.model_outputs import far_rows
from pushforward.detection.scores.ratio import check_pair
from pushforward.detection.scores.scales import latent_blocks, path, path_names, scale_count
from pushforward.errors import ConfigError
from pushforward.models import Model
from pushforward.numerics import RowNoise, cast_finite
from pushforward.numerics.checks import check_integer
from pushforward.registry import register

__all__ = ["GeneralModelRatio"]


@register("scores")
class GeneralModelRatio(Score):
    """``-(l_k(x) - l_k,general(x))``, nats, where ``l_k = log p(z_k) + log abs det`` of the transforms of scale k.

    l_k is the contribution of one scale to log p. The general model is trained on a broad set of images, and the model is
    fine-tuned from it on the data, so low-level features that all images have cancel (Schirrmeister et al. 2020, arXiv
    2006.10848). The paper obtains the best results with the coarsest scale, which represents shapes. The contributions of
    all scales add up to log p; :class:`LikelihoodRatio` uses their sum.

    Args:
        model: multi-scale flow, such as :class:`~pushforward.models.Glow`.
        general: multi-scale flow with the same scales.
        scale: index of the scale. 0 is the finest scale, which includes the transforms from integers to reals; -1 is the
            coarsest, and negative numbers count from there.
        samples: number of draws of the models' noise, over which the contributions are averaged.

    Raises:
        ConfigError: for models of different shapes or scales, or a base that is not a product over coordinates.
        KindError: for models with different measures.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.detection.scores import GeneralModelRatio
        >>> flow = pf.models.Glow((1, 8, 8), scales=2, layers=1, hidden=(4,))
        >>> GeneralModelRatio(flow, flow)(torch.randint(256, (2, 1, 8, 8))).abs()
        tensor([0., 0.], dtype=torch.float64)
    """

    needs = frozenset({"forward", "second model"})

    def __init__(self, model: Model, general: Model, scale: int = -1, samples: int = 1) -> None:
        super().__init__()
        check_pair(model, general, "GeneralModelRatio", context=False)
        count = scale_count(model)
        if latent_blocks(model.chain, model.shape) != latent_blocks(general.chain, general.shape):
            raise ConfigError(
                "GeneralModelRatio compares models scale by scale: both models must have the same scales."
            )
        if count > 1 and any("base" in path_names(part)[0] for part in (model, general)):
            raise ConfigError(
                "GeneralModelRatio needs base distributions that are products over coordinates, such as Normal."
            )
        check_integer("scale", scale, -count, most=count - 1)
        check_integer("samples", samples)
        self.model, self.general, self.scale, self.samples = model, general, scale, samples

    def _contribution(self, model: Model, x: Tensor) -> Tensor:
        count, terms = scale_count(model), path_names(model)[0]
        scale = self.scale % count
        ending = f" {scale}" if count > 1 else ""
        names = terms if count == 1 else [n for n in terms if n.endswith(ending) or (scale == 0 and n == "elementwise")]
        total = torch.zeros(x.shape[0], dtype=torch.float64, device=x.device)
        for draw in range(self.samples):
            columns = path(model, cast_finite(x, model.dtype), RowNoise(0, draw))
            total += torch.stack([columns[name] for name in names]).sum(0)
        return total / self.samples

    def _score(self, x: Tensor) -> Tensor:
        far = far_rows(x)
        x = torch.where(torch.isinf(x), 0.0, x)
        own, other = self._contribution(self.model, x), self._contribution(self.general, x)
        return torch.where(far | torch.isneginf(own), math.inf, other - own)
