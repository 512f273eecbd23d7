"""`selective_answers`: from a guard and held-out rows with labels to abstention and sets for answers without an alarm."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pushforward.detection.network.reading import class_labels
from pushforward.detection.selective import ClassifierCalibration
from pushforward.errors import CalibrationError, ConfigError, InputError

if TYPE_CHECKING:
    from pushforward.estimators.network_guard import NetworkGuard

__all__ = ["Labeled", "selective_answers"]

_OTHER = "pass calibration=(x, y), rows with labels that neither the network nor the guard has seen"


class Labeled:
    """Logits and labels of held-out rows, collected while they are read.

    Nothing is kept if a batch has no labels or no logits, or beyond 20 million numbers (80 MB).
    """

    _MOST = 20_000_000

    def __init__(self) -> None:
        self.parts: list[tuple[Tensor, Tensor]] | None = []
        self.size = 0

    def add(self, logits: Tensor | None, labels: Tensor | None) -> None:
        """Keep a batch."""
        if logits is None or labels is None or labels.shape != logits.shape[:1]:
            self.parts = None
        elif self.parts is not None:
            self.parts.append((logits.detach().cpu(), labels.detach().cpu()))
            self.size += logits.numel()
            if self.size > self._MOST:
                self.parts = None

    def rows(self, index: Tensor) -> tuple[Tensor, Tensor] | None:
        """Logits and labels of some rows; None if nothing was kept."""
        if not self.parts:
            return None
        logits, labels = (torch.cat([part[k] for part in self.parts]) for k in (0, 1))
        return logits[index], labels[index]


def selective_answers(guard: NetworkGuard, calibration: Any, options: dict[str, Any]) -> ClassifierCalibration:
    """See :meth:`NetworkGuard.selective`."""
    if guard.classes_ < 2:
        raise ConfigError(
            "selective needs a network that classifies; this one has no logits, or the guard does not use them."
        )
    if "scores" in options:
        raise ConfigError(
            "selective ranks rows by their calibrated uncertainty, since GuardOutput.accept does: leave scores out, or use ClassifierCalibration.fit."
        )
    logits, labels = _own_rows(guard) if calibration is None else _read_rows(guard, calibration)
    fitted = ClassifierCalibration.fit(logits, labels, **options)
    fitted.without_alarm = True
    return fitted


def _own_rows(guard: NetworkGuard) -> tuple[np.ndarray, np.ndarray]:
    """The rows that calibrated the guard, below the score at which the alarm begins."""
    if not guard.promised_:
        raise CalibrationError(
            f"the network has learned the rows that calibrated this guard, so it errs less on them: {_OTHER}."
        )
    if guard.per_class:
        raise CalibrationError(
            f"a guard with per_class=True has a threshold for each class, and its own rows without an alarm are no longer a sample: {_OTHER}."
        )
    if guard._labeled is None:
        raise CalibrationError(
            f"this guard kept no labels of its calibration rows (they had none, it was loaded from a file, or there are too many): {_OTHER}."
        )
    scores = guard._calibration[0].numpy()
    begins = guard.calibrators_[None].score_threshold(guard.alpha, guard.guarantee, guard.delta)
    last = math.nextafter(begins, -math.inf)  # the largest score without an alarm; it belongs to a calibration row
    if (scores == last).sum() > 1:
        raise CalibrationError(f"several calibration rows have the score at which the alarm begins: {_OTHER}.")
    # Given this score, the rows below it are independent draws of a row below it; the row that has it is not.
    below = scores < last
    logits, labels = guard._labeled
    return logits.numpy()[below], labels.numpy()[below]


def _read_rows(guard: NetworkGuard, data: Any) -> tuple[np.ndarray, np.ndarray]:
    """Other rows that raise no alarm."""
    logits, labels = [], []
    for inputs, given in guard._batches(data, "the calibration data"):
        y = class_labels(given)
        if y is None:
            raise InputError(
                "selective needs labels, integers from 0: give calibration=(x, y), or batches of inputs and labels."
            )
        out = guard(inputs)
        if y.shape != out.alarm.shape:
            raise InputError(
                f"a batch has {len(out.alarm)} inputs and labels of shape {tuple(y.shape)}: give one label for each input."
            )
        assert out.logits is not None
        logits.append(out.logits[~out.alarm])
        labels.append(y.cpu()[~out.alarm])
    return torch.cat(logits).numpy(), torch.cat(labels).numpy()
