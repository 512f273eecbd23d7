"""Baseline scores: distance to the k-th nearest in-distribution row, in data space and in latent space."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from pushforward.detection.batching import by_batches
from pushforward.detection.scores.base import Score
from pushforward.detection.scores.model_outputs import check_model, far_rows, finite_reference, latents
from pushforward.errors import InputError
from pushforward.models import Model
from pushforward.numerics.checks import check_integer
from pushforward.registry import register

__all__ = ["LatentNeighbors", "Neighbors"]


def kth_distance(rows: Tensor, reference: Tensor, k: int) -> Tensor:
    """Euclidean distance of each of ``(n, D)`` rows to its k-th nearest of ``(m, D)`` reference rows, ``(n,)``."""
    # With an odd number of columns the product rounds a row by its place in the batch; columns of zeros change no distance.
    rows, reference = (F.pad(part, (0, -part.shape[1] % 8)) for part in (rows, reference))
    # Matrix products are ten times as fast as differences, and float64 is precise enough for them.
    distance = torch.cdist(rows, reference, compute_mode="use_mm_for_euclid_dist")
    return distance.kthvalue(k, 1).values


def _check_k(k: int) -> int:
    check_integer("k", k)
    return k


def _check_reference(reference: Tensor, k: int, owner: str) -> Tensor:
    if len(reference) < k:
        raise InputError(
            f"{owner} needs at least k={k} reference rows; got {len(reference)}: use a smaller k or more rows."
        )
    return finite_reference(reference, "the input")


@register("scores")
class Neighbors(Score):
    """Euclidean distance of x to its k-th nearest reference row, in data space; needs no model.

    Rows may have any shape. The fitted score stores the reference rows.

    Args:
        k: index of the neighbor, 1 for the nearest.
        standardize: whether to divide each coordinate by its standard deviation on the reference rows, for tables with
            mixed units. A coordinate that is constant there is not divided.

    Raises:
        ConfigError: for a k below 1.
        InputError: by :meth:`fit`, for fewer than k rows.

    Example:
        >>> import torch
        >>> from pushforward.detection.scores import Neighbors
        >>> score = Neighbors(k=2).fit(torch.tensor([[0.0], [1.0], [5.0]]))
        >>> score(torch.tensor([[0.0], [7.0]]))
        tensor([1., 6.], dtype=torch.float64)
    """

    needs = frozenset()

    def __init__(self, k: int = 5, standardize: bool = False) -> None:
        super().__init__()
        self.k, self.standardize = _check_k(k), standardize
        self.declare(reference=2, center=1, scale=1)

    reference: Tensor
    center: Tensor
    scale: Tensor

    def _learn(self, reference: Tensor) -> None:
        rows = _check_reference(reference, self.k, type(self).__name__).flatten(1).double()
        self.center = rows.mean(0)  # distances stay the same, with less cancellation
        spread = rows.std(0, correction=0)
        self.scale = torch.where(spread > 0, spread, 1.0) if self.standardize else torch.ones_like(spread)
        self.reference = (rows - self.center) / self.scale

    def _score(self, x: Tensor) -> Tensor:
        rows, far = x.flatten(1).double(), far_rows(x)
        if rows.shape[1] != len(self.center):
            raise InputError(f"Neighbors was fitted on rows of {len(self.center)} values; got rows of {rows.shape[1]}.")
        rows = (torch.where(far[:, None], 0.0, rows) - self.center) / self.scale
        return torch.where(far, math.inf, kth_distance(rows, self.reference, self.k))


@register("scores")
class LatentNeighbors(Score):
    """Euclidean distance of z = encode(x) to the k-th nearest of the reference rows' latents.

    The fitted score stores these latents.

    Args:
        model: any model.
        k: index of the neighbor, 1 for the nearest.

    Raises:
        ConfigError: for a k below 1.
        InputError: by :meth:`fit`, for fewer than k rows.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.detection.scores import LatentNeighbors
        >>> score = LatentNeighbors(pf.models.NICE(features=2)).fit(torch.randn(99, 2))
        >>> score(torch.tensor([[0.0, 0.0], [9.0, 9.0]])).argmax().item()
        1
    """

    def __init__(self, model: Model, k: int = 5) -> None:
        super().__init__()
        self.model, self.k = check_model(model, "LatentNeighbors"), _check_k(k)
        self.declare(reference=2)

    reference: Tensor

    def _learn(self, reference: Tensor) -> None:
        _check_reference(reference, self.k, type(self).__name__)
        self.reference = by_batches(lambda part: latents(self.model, part), reference, self.batch_size)

    def _score(self, x: Tensor) -> Tensor:
        return torch.where(far_rows(x), math.inf, kth_distance(latents(self.model, x), self.reference, self.k))
