"""`NetworkScore`: the interface of the scores that read a network."""

from __future__ import annotations

import copy
import inspect
from abc import ABC, abstractmethod
from contextlib import nullcontext
from typing import Any, Literal, Self, final

import torch
from torch import Tensor, nn

from pushforward.detection.modes import outside_inference, without_autocast
from pushforward.detection.network.reading import Reading
from pushforward.detection.network.streaming import Gathered
from pushforward.errors import ConfigError, InputError

__all__ = ["Cost", "Need", "NetworkScore"]

Need = Literal["logits", "head", "labels", "layers", "maps", "gradient", "dropout", "members"]
Cost = Literal["one forward pass", "a gradient of the input", "several forward passes", "unknown"]


class NetworkScore(nn.Module, ABC):
    """An anomaly score of what a network shows of its inputs; **higher is more anomalous**.

    A subclass says what it needs beside the features and what one evaluation costs, declares the tensors that fitting finds, and
    implements :meth:`_learn` and :meth:`_score`. The score of a row depends on that row alone. The arguments of its constructor
    are plain values, stored under their own names.

    Example:
        >>> import torch
        >>> from pushforward.detection.network import NetworkScore, Reading
        >>> class Margin(NetworkScore):
        ...     # Minus the difference of the two largest logits.
        ...     needs = frozenset({"logits"})
        ...     def _score(self, reading):
        ...         top = reading.logits.topk(2).values
        ...         return top[:, 1] - top[:, 0]
        >>> Margin()(Reading(output=None, features=torch.zeros(2, 1), logits=torch.tensor([[2.0, 0.0], [0.5, 0.0]])))
        tensor([-2.0000, -0.5000], dtype=torch.float64)
    """

    needs: frozenset[Need] = frozenset()
    """What it reads beside the features."""
    cost: Cost = "one forward pass"
    """What one evaluation costs."""
    single: bool = False
    """Whether to score in single precision where the network computes in it, which is faster."""
    _declared: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.fitted = False
        self._prepared: dict[torch.dtype, Any] = {}

    @final
    def declare(self, **dims: int) -> None:
        """Declare the fitted tensors by name and number of dimensions, as float64 buffers: ``declare(mean=1, factor=2)``."""
        for name, count in dims.items():
            self.register_buffer(name, torch.zeros((0,) * count, dtype=torch.float64))
        self._declared = (*self._declared, *dims)

    @abstractmethod
    def _score(self, reading: Reading) -> Tensor:
        """The score of each row, ``(n,)``."""

    def _learn(self, gathered: Gathered) -> None:
        """Compute the declared tensors; grad mode is off unless the score trains. The default does nothing."""

    def _derive(self, dtype: torch.dtype) -> Any:
        """What scoring derives from the declared tensors and keeps, in this precision; the default derives nothing."""

    @final
    def prepared(self, dtype: torch.dtype) -> Any:
        """What :meth:`_derive` gives, derived once."""
        if dtype not in self._prepared:
            with outside_inference():
                self._prepared[dtype] = self._derive(dtype)
        return self._prepared[dtype]

    @final
    def prepare(self) -> None:
        """Derive now, in every precision that scoring may use, so that tracing finds it."""
        for dtype in (torch.float64, torch.float32) if self.single else (torch.float64,):
            self.prepared(dtype)

    @final
    def precision(self, reading: Reading) -> torch.dtype:
        """The precision in which a reading is scored: double, or with ``single`` that of the features."""
        return torch.float32 if self.single and reading.features.dtype == torch.float32 else torch.float64

    def observe(self, reading: Reading) -> dict[str, Tensor]:
        """Further columns of a batch for the reservoir, by name, each with one row per input."""
        return {}

    @final
    def fit(self, gathered: Gathered) -> Self:
        """Fit on what one pass over the training data left behind.

        Raises:
            ConfigError: if the network lacks what this score needs.
            InputError: for too few rows.
        """
        self.check(gathered.weight is not None, "logits" in gathered.moments, gathered.layers)
        with torch.no_grad(), without_autocast():
            self._learn(gathered)
        for name in self._declared:  # the memory layout that a file gives, so that results agree bit for bit
            setattr(self, name, getattr(self, name).double().cpu().contiguous())
        self.fitted, self._prepared = True, {}
        return self

    differentiable: bool = True
    """Whether the score has a gradient by the inputs."""

    def networks(self) -> tuple[nn.Module, ...]:
        """Networks that this score runs and does not fit; the default has none."""
        return ()

    @final
    def copied(self) -> Self:
        """A copy that can be fitted by itself; it shares the :meth:`networks`.

        Example:
            >>> from pushforward.detection.network import Neighbors
            >>> score = Neighbors(k=5)
            >>> score.copied() is score, score.copied().k
            (False, 5)
        """
        return copy.deepcopy(self, {id(net): net for net in self.networks()})

    def check(self, head: bool, logits: bool, layers: tuple[str, ...]) -> None:
        """Refuse a network that lacks what this score needs.

        Raises:
            ConfigError: saying what is missing and which scores do without.
        """
        name = type(self).__name__
        if "head" in self.needs and not head:
            raise ConfigError(
                f"{name} needs the last linear layer of the network, and none was found: use Mahalanobis or Neighbors, which need "
                "features alone."
            )
        if "logits" in self.needs and not logits:
            raise ConfigError(
                f"{name} needs the logits of a classifier, and this network does not classify (its training data have no labels "
                "from 0 to its number of outputs): use Mahalanobis, Neighbors or FeatureFlow, or task='classify'."
            )
        if ("layers" in self.needs or "maps" in self.needs) and not layers:
            raise ConfigError(f"{name} needs inner layers: name some with layers=[...] of net.named_modules().")

    @final
    def forward(self, reading: Reading) -> Tensor:
        """The score of each row, float64, ``(n,)``; +inf for a row whose features are NaN or infinite.

        Raises:
            InputError: if it must be fitted and was not, or for a reading without the logits that it needs.
        """
        return finite_or_infinity(self.raw(reading.clean).double(), reading)

    @final
    def raw(self, reading: Reading) -> Tensor:
        """The score of each row of a reading without NaN or infinity, in any precision; it may be NaN where it overflows.

        Raises:
            InputError: if it must be fitted and was not, or for a reading without the logits that it needs.
        """
        if self._declared and not self.fitted:
            raise InputError(f"{type(self).__name__} must be fitted first: pass it to pf.NetworkGuard(net, score=...).")
        if "logits" in self.needs and reading.logits is None:
            raise InputError(
                f"{type(self).__name__} needs logits, and this reading has none: read a network that classifies."
            )
        # A score that runs the network again runs it in the autocast of the caller, and computes in double precision.
        with without_autocast() if self.cost == "one forward pass" else nullcontext():
            return self._score(reading)

    def arguments(self) -> dict[str, Any]:
        """The arguments of the constructor, plain values."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}


def finite_or_infinity(scores: Tensor, reading: Reading) -> Tensor:
    """Scores ``(n,)`` or ``(n, parts)`` with +inf for NaN, and in rows of a reading that are not finite."""
    scores = torch.nan_to_num(scores, nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
    if reading.surely_finite:
        return scores
    finite = reading.finite
    return torch.where(finite if scores.dim() == 1 else finite.unsqueeze(1), scores, torch.inf)


def logits_of(reading: Reading) -> Tensor:
    """The logits of a reading, float64."""
    assert reading.logits is not None
    return reading.logits.double()


def predicted(reading: Reading) -> Tensor:
    """The predicted class of each row, int64."""
    if reading.logits is None:
        return torch.zeros(len(reading), dtype=torch.long, device=reading.features.device)
    return reading.logits.argmax(1)
