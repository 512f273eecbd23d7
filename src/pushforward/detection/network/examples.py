"""Reasons: which statistic is unusual, which training rows are nearest, and where in the input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pushforward.detection.modes import outside_inference, without_autocast
from pushforward.detection.network.combined import Combined
from pushforward.detection.network.reader import NetworkReader
from pushforward.detection.network.reading import Reading
from pushforward.detection.network.scores.gradients import first_float, ordinary, with_first
from pushforward.detection.network.scores.neighbors import unit
from pushforward.detection.network.streaming import Gathered
from pushforward.errors import ConfigError, StorageError

if TYPE_CHECKING:
    from pushforward.detection.selective import ClassifierCalibration

__all__ = ["Examples", "GuardOutput", "NetworkExplanation", "input_gradient"]

_STORED = 2000
"""Largest number of training rows among which the nearest are looked for."""


class GuardOutput:
    """What a guard says of a batch.

    Attributes:
        prediction: the predicted class of each row, ``(n,)``; of a network that does not classify, its output.
        p_value: conformal p-values, float64, ``(n,)``.
        alarm: whether each row raises an alarm, bool, ``(n,)``.
        score: anomaly scores, float64, ``(n,)``; higher is more anomalous.
        output: what the network returned, unchanged.
        logits: of a network that classifies, ``(n, classes)`` on the CPU; otherwise None.

    Example:
        >>> import torch, pushforward as pf
        >>> _ = torch.manual_seed(0)
        >>> x, y = torch.randn(600, 4), torch.randint(0, 3, (600,))
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3)).eval()
        >>> out = pf.NetworkGuard(net, alpha=0.05).fit((x[:300], y[:300]), calibration=x[300:])(x[:2])
        >>> out.p_value.shape, out.output.shape
        (torch.Size([2]), torch.Size([2, 3]))
    """

    def __init__(
        self,
        prediction: Any,
        p_value: Tensor,
        alarm: Tensor,
        score: Tensor,
        output: Any,
        reasons: Callable[[], tuple[str, ...]],
        logits: Tensor | None = None,
    ) -> None:
        self.prediction, self.p_value, self.alarm, self.score = prediction, p_value, alarm, score
        self.output, self.logits, self._reasons = output, logits, reasons

    @cached_property
    def reason(self) -> tuple[str, ...]:
        """A sentence for each row that raises an alarm, and "" for the others; it is made when it is first read."""
        return self._reasons()

    def accept(self, calibration: ClassifierCalibration) -> Tensor:
        """Whether to use each answer, bool ``(n,)``: it raises no alarm, and the calibration accepts its uncertainty.

        Args:
            calibration: from :meth:`NetworkGuard.selective <pushforward.NetworkGuard.selective>`, with a promised risk.

        Raises:
            ConfigError: for a calibration without a promised risk or that was fitted with ``scores``, or a network that does not classify.
            InputError: for a calibration of another number of classes.
        """
        if self.logits is None:
            raise ConfigError("accept needs a network that classifies.")
        if calibration.by_scores:
            raise ConfigError(
                "this calibration was fitted with scores=, and accept compares its threshold with the calibrated uncertainty: fit it without "
                "scores, or call calibration.accept(scores)."
            )
        accepted = ~self.alarm
        rows = self.logits[accepted].double().numpy()  # rows with NaN raise an alarm
        accepted[accepted.clone()] = torch.from_numpy(calibration.accept(calibration.uncertainty(rows)))
        return accepted

    def __getstate__(self) -> dict[str, Any]:
        """What a pickle contains: the reasons as text, since the guard is no part of it."""
        return {**vars(self), "reason": self.reason, "_reasons": None}

    def __repr__(self) -> str:
        return f"GuardOutput({len(self.alarm)} rows, {int(self.alarm.sum())} alarms)"


@dataclass(frozen=True)
class NetworkExplanation:
    """Why inputs are unusual.

    Attributes:
        names: of the statistics.
        surprise: ``-log P(T >= t)`` of each statistic on held-out rows, nats, ``(n, statistics)``.
        nearest: positions in the training data of the nearest training rows by the angle of their features, ``(n, k)``.
        labels: their classes, ``(n, k)``.
        distance: distance of the normalized features, ``(n, k)``.
        gradient: absolute gradient of the score by the input, of the input's shape; None if it was not asked for.
    """

    names: tuple[str, ...]
    surprise: np.ndarray
    nearest: np.ndarray
    labels: np.ndarray
    distance: np.ndarray
    gradient: np.ndarray | None = None

    def top(self, row: int = 0, k: int = 3) -> list[tuple[str, float]]:
        """The k most surprising statistics of one row, with their nats."""
        order = np.argsort(-self.surprise[row], kind="stable")[:k]
        return [(self.names[i], float(self.surprise[row, i])) for i in order]


class Examples:
    """Training rows that explain new ones: normalized features, their classes, and their positions in the training data."""

    def __init__(self, features: Tensor, labels: Tensor, index: Tensor, classify: bool) -> None:
        self.features, self.labels, self.index, self.classify = features, labels, index, classify

    @classmethod
    def of(cls, gathered: Gathered) -> Examples:
        """A sample of the reservoir."""
        sample = {name: gathered.sample[name][:_STORED] for name in ("features", "labels", "index")}
        return cls(unit(sample["features"]).float(), sample["labels"], sample["index"], gathered.classes > 1)

    def nearest(self, features: Tensor, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Positions, classes and distances of the k nearest examples of each row, ``(n, k)``; -1, -1 and NaN for a row with NaN."""
        finite = torch.isfinite(features).all(1)
        rows = unit(torch.where(finite[:, None], features, 0)).float()
        with without_autocast():
            product = rows @ self.features.T
        similarity, order = product.topk(min(k, len(self.features)), 1)
        distance = (2 - 2 * similarity.double()).clamp(min=0).sqrt()
        keep = finite[:, None]
        index, labels = (torch.where(keep, values[order], -1).numpy() for values in (self.index, self.labels))
        return index, labels, torch.where(keep, distance, torch.nan).numpy()

    def reasons(self, reading: Reading, surprise: Tensor, names: Sequence[str], alarm: Tensor) -> tuple[str, ...]:
        """A sentence for every row with an alarm."""
        finite = reading.finite
        index, labels, _ = self.nearest(reading.features, 3)
        result = []
        for row in range(len(reading)):
            if not alarm[row]:
                result.append("")
            elif not finite[row]:
                result.append("the network's features are NaN or infinite")
            else:
                result.append(self._sentence(surprise[row], names, index[row], labels[row]))
        return tuple(result)

    def _sentence(self, surprise: Tensor, names: Sequence[str], index: np.ndarray, labels: np.ndarray) -> str:
        k = int(surprise.argmax())
        fraction = float(torch.exp(-surprise[k]))
        rare = f"{fraction:.2g}" if fraction > 1e-6 else "less than 1e-6"
        rows = ", ".join(map(str, index))
        classes = f" (classes {', '.join(map(str, labels))})" if self.classify else ""
        return f"{names[k]} is as high for {rare} of normal inputs; the nearest training rows are {rows}{classes}"

    def pack(self, prefix: str) -> dict[str, Tensor]:
        """Tensors for a file."""
        parts = {
            "features": self.features,
            "labels": self.labels,
            "index": self.index,
            "classify": torch.tensor(self.classify),
        }
        return {prefix + name: value for name, value in parts.items()}

    @classmethod
    def unpack(cls, tensors: dict[str, Tensor], prefix: str) -> Examples:
        """Rebuild from tensors of a file.

        Raises:
            StorageError: for tensors that do not fit each other.
        """
        features, labels, index, classify = (
            tensors[prefix + name] for name in ("features", "labels", "index", "classify")
        )
        if (
            features.dim() != 2
            or not features.is_floating_point()
            or not len(features) == len(labels) == len(index) > 0
        ):
            raise StorageError("its training examples do not fit each other.")
        if labels.dtype != torch.int64 or index.dtype != torch.int64 or classify.dtype != torch.bool:
            raise StorageError("its training examples have the wrong type.")
        return cls(features.float(), labels, index, bool(classify))


def input_gradient(reader: NetworkReader, score: Combined, inputs: Any) -> np.ndarray:
    """Absolute gradient of the score of each row by its input, of the input's shape; inf where it overflows, and never NaN.

    Raises:
        ConfigError: for an input that is not of floating-point numbers, or a score without a gradient.
    """
    if without := [type(part).__name__ for part in score.scores if not part.differentiable]:
        raise ConfigError(
            f"{without[0]} has no gradient by the input: explain without gradient=True, or fit the guard with another score."
        )
    maps = any("maps" in part.needs for part in score.scores)
    with outside_inference(), torch.enable_grad():
        inputs = ordinary(inputs)
        x = first_float(inputs).detach().requires_grad_()
        reading = reader.read(with_first(inputs, x), maps=maps, grad=True)
        if reader.classifies is False:
            reading.logits = None
        (gradient,) = torch.autograd.grad(score(reading).sum(), x)
        finite = reading.finite
    gradient = torch.nan_to_num(gradient.abs().detach().cpu(), nan=torch.inf, posinf=torch.inf)  # inf - inf, inf * 0
    if len(gradient) == len(finite):
        gradient[~finite] = 0
    return (gradient.float() if gradient.dtype == torch.bfloat16 else gradient).numpy()  # NumPy has no bfloat16
