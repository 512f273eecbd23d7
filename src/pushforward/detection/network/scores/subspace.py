"""Distances to the subspace of the features: the residual, and ViM's virtual logit."""

from __future__ import annotations

import torch
from torch import Tensor

from pushforward.detection.network.reading import Reading
from pushforward.detection.network.scores.base import NetworkScore, logits_of
from pushforward.detection.network.streaming import Gathered
from pushforward.errors import ConfigError
from pushforward.numerics.checks import check_integer

__all__ = ["Residual", "ViM"]


def subspace_size(features: int, size: int | None) -> int:
    """The dimension of the principal subspace: as given, else the paper's 1000 and 512 for wide layers, and half of narrow ones.

    Raises:
        ConfigError: for as many dimensions as there are features.
    """
    if size is None:
        return 1000 if features >= 2048 else 512 if features >= 768 else features // 2
    if size >= features:
        raise ConfigError(f"size must be less than the {features} features of the network; got {size}.")
    return size


class Residual(NetworkScore):
    """Norm of the part of the features outside their principal subspace (Wang et al. 2022, arXiv 2203.10807, eq. 3).

    The origin is ``-pinv(W) b``, at which the logits are closest to 0; without a linear head it is the mean.

    Args:
        size: dimension of the subspace; None for the paper's choice.
        single: whether to score in single precision where the network computes in it, which is faster.

    Example:
        >>> import torch, pushforward as pf
        >>> _ = torch.manual_seed(0)
        >>> x, y = torch.randn(600, 4), torch.arange(600) % 3
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
        >>> score = pf.detection.network.Residual(size=2)
        >>> guard = pf.NetworkGuard(net, alpha=0.05, score=score).fit((x[:300], y[:300]), calibration=x[300:])
        >>> guard(torch.tensor([[30.0, -30.0, 30.0, 30.0]])).alarm
        tensor([True])
    """

    def __init__(self, size: int | None = None, single: bool = False) -> None:
        super().__init__()
        self.size, self.single = check_integer("size", size, optional=True), bool(single)
        self.declare(origin=1, complement=2)

    origin: Tensor
    complement: Tensor

    def _learn(self, gathered: Gathered) -> None:
        moments = gathered.moments["features"]
        self.origin = moments.mean
        if gathered.weight is not None and gathered.bias is not None:
            self.origin = -(torch.linalg.pinv(gathered.weight) @ gathered.bias).cpu()
        directions = torch.linalg.eigh(moments.second_about(self.origin))[1]
        outside = len(directions) - subspace_size(len(directions), self.size)
        self.complement = directions[:, :outside].contiguous()

    def _derive(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        return self.origin.to(dtype), self.complement.to(dtype)

    def _score(self, reading: Reading) -> Tensor:
        dtype = self.precision(reading)
        origin, complement = self.prepared(dtype)
        return ((reading.features.to(dtype) - origin) @ complement).norm(dim=1)


class ViM(Residual):
    """``a ||residual|| - logsumexp(f)``: a virtual logit from the residual (Wang et al. 2022, arXiv 2203.10807, eq. 6 to 8).

    The factor a makes the mean virtual logit of the training rows equal to their mean largest logit. Where training rows have no
    residual but rounding errors, because units are dead, it is bounded as if the residual were 1e-6 of the distance from the origin;
    where the largest logits are negative on average it is 0.

    Args:
        size: dimension of the subspace; None for the paper's choice.
        single: whether to score in single precision where the network computes in it, which is faster.

    Example:
        >>> import torch, pushforward as pf
        >>> _ = torch.manual_seed(0)
        >>> x, y = torch.randn(600, 4), torch.arange(600) % 3
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
        >>> score = pf.detection.network.ViM(size=2)
        >>> guard = pf.NetworkGuard(net, alpha=0.05, score=score).fit((x[:300], y[:300]), calibration=x[300:])
        >>> guard(torch.tensor([[30.0, -30.0, 30.0, 30.0]])).alarm
        tensor([True])
    """

    needs = frozenset({"logits", "head"})

    def __init__(self, size: int | None = None, single: bool = False) -> None:
        super().__init__(size, single)
        self.declare(scale=0)

    scale: Tensor

    def _learn(self, gathered: Gathered) -> None:
        super()._learn(gathered)
        rows = gathered.sample["features"].double() - self.origin
        residual, least = (rows @ self.complement).norm(dim=1).mean(), 1e-6 * rows.norm(dim=1).mean()
        largest = gathered.sample["logits"].double().amax(1).mean().clamp(min=0)
        self.scale = largest / torch.maximum(residual, least).clamp(min=1e-300)

    def _score(self, reading: Reading) -> Tensor:
        return self.scale * super()._score(reading) - torch.logsumexp(logits_of(reading), 1)
