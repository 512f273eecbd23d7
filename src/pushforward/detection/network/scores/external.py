"""Detectors of other libraries, and functions of your own, as scores with this library's calibration."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from sklearn.base import OutlierMixin
from torch import Tensor, nn

from pushforward.detection.modes import without_autocast
from pushforward.detection.network.reading import Reading
from pushforward.detection.network.scores.base import NetworkScore
from pushforward.detection.network.streaming import Gathered
from pushforward.errors import ConfigError, InputError
from pushforward.numerics.conversion import as_tensor

__all__ = ["External"]


class External(NetworkScore):
    """A detector of pytorch-ood or oodeel, or a function, as a score; higher must mean more anomalous.

    - pytorch-ood: a detector of logits or of features is fitted on the rows that the guard has read
      (``fit_logits``, ``fit_features``), as a copy, and scores them without another pass. Any other detector reads the inputs itself
      (``predict``): fit it first.
    - oodeel: fit the detector first; it is called with the inputs, and its first result is the score.
    - a function of the inputs, or with ``reads="reading"`` of a :class:`~pushforward.detection.network.Reading`.

    Such a score is not written to a file.

    Args:
        detector: the detector or the function.
        reads: "inputs", "logits", "features" or "reading"; None finds out.

    Raises:
        ConfigError: for something that is neither.

    Example:
        >>> from pushforward.detection.network import External
        >>> External(lambda x: x.flatten(1).norm(dim=1)).reads
        'inputs'
    """

    cost = "unknown"
    differentiable = False

    def __init__(self, detector: Any, reads: str | None = None) -> None:
        super().__init__()
        if reads is None:
            owns = {cls.__name__ for cls in type(detector).__mro__}
            reads = "logits" if "LogitsDetector" in owns else "features" if "FeaturesDetector" in owns else "inputs"
        if reads not in ("inputs", "logits", "features", "reading"):
            raise ConfigError(f"reads must be 'inputs', 'logits', 'features' or 'reading'; got {reads!r}.")
        self.detector, self.reads = _Held(detector), reads
        if reads in ("logits", "features") and not hasattr(detector, f"predict_{reads}"):
            raise ConfigError(
                f"reads={reads!r} is for detectors with predict_{reads}, which {type(detector).__name__} has not: let a function take the whole "
                'reading, External(f, reads="reading"), and return one score for each row of reading.' + reads + "."
            )
        self.needs = frozenset({"logits"}) if reads == "logits" else frozenset()

    def _learn(self, gathered: Gathered) -> None:
        detector = self.detector()
        if hasattr(detector, f"fit_{self.reads}"):
            networks = [part for part in getattr(detector, "__dict__", {}).values() if isinstance(part, nn.Module)]
            own = copy.deepcopy(detector, {id(net): net for net in networks})  # the user's detector stays as it is
            self.detector = _Held(own)
            getattr(own, f"fit_{self.reads}")(gathered.sample[self.reads].clone(), gathered.sample["labels"].clone())

    def _score(self, reading: Reading) -> Tensor:
        detector = self.detector()
        if self.reads in ("logits", "features"):
            rows = reading.logits if self.reads == "logits" else reading.features
            with without_autocast():
                scores = getattr(detector, f"predict_{self.reads}")(rows)
        else:
            argument = reading if self.reads == "reading" else reading.inputs
            predict: Callable[[Any], Any] = getattr(detector, "predict", detector)
            scores = predict(argument)
        if isinstance(scores, tuple):
            scores = scores[0]
        scores = as_tensor(scores).detach().reshape(-1)
        if len(scores) != len(reading):
            raise InputError(
                f"{type(detector).__name__} returned {len(scores)} scores for {len(reading)} inputs: it must give one for each."
            )
        return scores.to(reading.features.device)


class _Held:
    """The detector, so that a detector that is a module does not become a part of the score."""

    def __init__(self, detector: Any) -> None:
        name = type(detector).__name__
        if isinstance(detector, OutlierMixin):
            raise ConfigError(
                f"predict of {name}, as of every outlier detector of scikit-learn, is -1 for anomalies, and a score must be higher for them: give a "
                "function, such as lambda x: -detector.score_samples(x.flatten(1).numpy())."
            )
        if not callable(detector) and not hasattr(detector, "predict"):
            raise ConfigError(f"External needs a detector with predict, or a function; got {name}.")
        self._detector = detector

    def __call__(self) -> Any:
        return self._detector

    def __deepcopy__(self, memo: dict[int, Any]) -> _Held:
        return self  # as a function, which no copy copies
