"""The Mahalanobis distance of an input's latents from the latents of in-distribution rows."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pushforward.detection.batching import by_batches
from pushforward.detection.scores.base import Score
from pushforward.detection.scores.model_outputs import NOISES, check_model, far_rows, finite_reference, latents
from pushforward.errors import InputError
from pushforward.models import Model
from pushforward.numerics.checks import check_choice
from pushforward.registry import register

__all__ = ["LatentMahalanobis", "shrunk_whitening"]


def shrunk_whitening(rows: Tensor, owner: str) -> tuple[Tensor, Tensor]:
    """Mean and whitening matrix W, so that ``||(row - mean) W||`` is the Mahalanobis distance.

    W W^T is the inverse of the covariance, shrunk towards a multiple of the identity (Ledoit and Wolf 2004). The standard
    deviation along each principal direction is at least a millionth of the largest one; if all are 0, they are set to 1.

    Args:
        rows: data, ``(n, D)``, float64.
        owner: name for the error message.

    Returns:
        Mean ``(D,)`` and W ``(D, D)``, both float64.

    Raises:
        InputError: for fewer than two rows.
    """
    from sklearn.covariance import ledoit_wolf  # slow to import

    if len(rows) < 2:
        raise InputError(f"{owner} needs at least two reference rows for a covariance; got {len(rows)}.")
    mean = rows.mean(0)
    covariance = torch.from_numpy(ledoit_wolf((rows - mean).cpu().numpy(), assume_centered=True)[0]).to(rows)
    variances, directions = torch.linalg.eigh(covariance)
    largest = variances[-1]
    floored = variances.clamp(min=1e-12 * float(largest)) if largest > 0 else torch.ones_like(variances)
    return mean, (
        directions * floored.rsqrt()
    ).contiguous()  # the memory layout that loading a file gives, so results agree bit for bit


@register("scores")
class LatentMahalanobis(Score):
    """``sqrt((z - m)^T S^-1 (z - m))`` for z = encode(x), with mean m and covariance S of the reference rows' latents.

    A perfect flow with a standard normal base has m = 0 and S = 1; the fitted m and S correct for the model's errors. S is
    shrunk (Ledoit and Wolf 2004), so the reference may have fewer rows than z has coordinates.

    Args:
        model: any model.
        noise: of dequantization: "row" (a hash of the row), or "middle" (the middle of each cell), which can be exported.

    Raises:
        InputError: by :meth:`fit`, for fewer than two rows.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.detection.scores import LatentMahalanobis
        >>> score = LatentMahalanobis(pf.models.NICE(features=2)).fit(torch.randn(99, 2))
        >>> score(torch.tensor([[0.0, 0.0], [9.0, 9.0]])).argmax().item()
        1
    """

    def __init__(self, model: Model, noise: str = "row") -> None:
        super().__init__()
        self.model = check_model(model, "LatentMahalanobis")
        self.noise = check_choice("noise", noise, tuple(NOISES))
        self.declare(mean=1, whitening=2)

    mean: Tensor
    whitening: Tensor

    def _learn(self, reference: Tensor) -> None:
        finite_reference(reference, "the input")
        z = by_batches(lambda part: latents(self.model, part, self.noise), reference, self.batch_size)
        self.mean, self.whitening = shrunk_whitening(z, type(self).__name__)

    def _score(self, x: Tensor) -> Tensor:
        distance = ((latents(self.model, x, self.noise) - self.mean) @ self.whitening).norm(dim=1)
        return torch.where(far_rows(x), math.inf, distance)
