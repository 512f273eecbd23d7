"""Scores of the logits alone that need no fitting: softmax, maximum logit, energy, entropy, GEN."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pushforward.detection.network.reading import Reading
from pushforward.detection.network.scores.base import NetworkScore, logits_of
from pushforward.numerics.checks import check_integer, check_number, check_positive

__all__ = ["GEN", "Energy", "Entropy", "MaxLogit", "MaxSoftmax"]


class MaxSoftmax(NetworkScore):
    """``-max_c softmax(f / T)_c`` (Hendrycks & Gimpel 2017, arXiv 1610.02136).

    Args:
        temperature: T.

    Example:
        >>> import torch
        >>> from pushforward.detection.network import Reading, MaxSoftmax
        >>> reading = Reading(output=None, features=torch.zeros(2, 1), logits=torch.tensor([[2.0, 0.0], [0.1, 0.0]]))
        >>> MaxSoftmax()(reading)  # the second row is less certain
        tensor([-0.8808, -0.5250], dtype=torch.float64)
    """

    needs = frozenset({"logits"})

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = check_positive("temperature", temperature)

    def _score(self, reading: Reading) -> Tensor:
        log_p = torch.log_softmax(logits_of(reading) / self.temperature, 1)
        return -log_p.amax(1).exp()


class MaxLogit(NetworkScore):
    """``-max_c f_c`` (Hendrycks et al. 2022, arXiv 1911.11132), or of ``f / ||f||_p`` after centering (Cattelan & Silva 2023).

    Args:
        p: of the norm; None for the plain logits. Centered logits are ``f - mean(f)``.

    Example:
        >>> import torch
        >>> from pushforward.detection.network import Reading, MaxLogit
        >>> reading = Reading(output=None, features=torch.zeros(2, 1), logits=torch.tensor([[2.0, 0.0], [0.1, 0.0]]))
        >>> MaxLogit()(reading)  # the second row is less certain
        tensor([-2.0000, -0.1000], dtype=torch.float64)
    """

    needs = frozenset({"logits"})

    def __init__(self, p: float | None = None) -> None:
        super().__init__()
        self.p = check_positive("p", p, optional=True)

    def _score(self, reading: Reading) -> Tensor:
        logits = logits_of(reading)
        if self.p is None:
            return -logits.amax(1)
        centered = logits - logits.mean(1, keepdim=True)
        norm = torch.linalg.vector_norm(centered, self.p, dim=1)
        return -centered.amax(1) / norm.clamp(min=1e-30)


class Energy(NetworkScore):
    """``-T logsumexp(f / T)`` (Liu et al. 2020, arXiv 2010.03759, eq. 4).

    Args:
        temperature: T.

    Example:
        >>> import torch
        >>> from pushforward.detection.network import Reading, Energy
        >>> reading = Reading(output=None, features=torch.zeros(2, 1), logits=torch.tensor([[2.0, 0.0], [0.1, 0.0]]))
        >>> Energy()(reading)  # the second row is less certain
        tensor([-2.1269, -0.7444], dtype=torch.float64)
    """

    needs = frozenset({"logits"})

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = check_positive("temperature", temperature)

    def _score(self, reading: Reading) -> Tensor:
        return -self.temperature * torch.logsumexp(logits_of(reading) / self.temperature, 1)


class Entropy(NetworkScore):
    """Entropy of the softmax in nats, ``-sum_c p_c log p_c``.

    Example:
        >>> import torch
        >>> from pushforward.detection.network import Reading, Entropy
        >>> reading = Reading(output=None, features=torch.zeros(2, 1), logits=torch.tensor([[2.0, 0.0], [0.1, 0.0]]))
        >>> Entropy()(reading)  # the second row is less certain
        tensor([0.3653, 0.6919], dtype=torch.float64)
    """

    needs = frozenset({"logits"})

    def _score(self, reading: Reading) -> Tensor:
        log_p = torch.log_softmax(logits_of(reading), 1)
        return -(log_p.exp() * log_p).sum(1)


class GEN(NetworkScore):
    """Generalized entropy ``sum_c p_c^g (1 - p_c)^g`` over the largest probabilities (Liu et al. 2023, CVPR, eq. 5).

    Args:
        gamma: the exponent g.
        top: number of largest probabilities; None for all.

    Example:
        >>> import torch
        >>> from pushforward.detection.network import Reading, GEN
        >>> reading = Reading(output=None, features=torch.zeros(2, 1), logits=torch.tensor([[2.0, 0.0], [0.1, 0.0]]))
        >>> GEN()(reading)  # the second row is less certain
        tensor([1.5964, 1.7407], dtype=torch.float64)
    """

    needs = frozenset({"logits"})

    def __init__(self, gamma: float = 0.1, top: int | None = None) -> None:
        super().__init__()
        self.gamma, self.top = check_number("gamma", gamma, 0, 100), check_integer("top", top, optional=True)

    def _score(self, reading: Reading) -> Tensor:
        log_p = torch.log_softmax(logits_of(reading), 1)
        count = log_p.shape[1] if self.top is None else min(self.top, log_p.shape[1])
        ranked = log_p.topk(log_p.shape[1], 1).values
        # 1 - p of the likeliest class is the sum of the others, which does not round to 0; no other p is above 1/2
        rest = (
            torch.logsumexp(ranked[:, 1:], 1, keepdim=True)
            if ranked.shape[1] > 1
            else torch.full_like(ranked, -math.inf)
        )
        log_q = torch.cat((rest, torch.log1p(-ranked[:, 1:].exp().clamp(max=0.75))), 1)
        return (self.gamma * (ranked + log_q)[:, :count].clamp(min=-1e300)).exp().sum(1)
