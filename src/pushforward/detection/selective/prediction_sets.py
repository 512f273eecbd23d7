"""Conformal prediction sets: for each row the labels that it may have, with a promised coverage."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pushforward.detection.conformal.calibration import ConformalCalibrator
from pushforward.detection.conformal.guarantees import SMALLEST_ALPHA, Guarantee, rows_needed
from pushforward.detection.selective.inputs import class_labels, logit_matrix
from pushforward.detection.selective.set_scores import (
    adaptive_scores,
    hashed_uniform,
    least_ambiguous_scores,
    row_uniform,
)
from pushforward.errors import CalibrationError, ConfigError, InputError, StorageError, in_words
from pushforward.numerics.checks import check_choice, check_integer, check_number, check_positive

__all__ = ["PredictionSets"]


class PredictionSets:
    """Sets of labels that contain the true one with a promised probability (split conformal prediction).

    A label is in the set of a row if its conformal p-value among the scores of the calibration rows' true labels is above
    1 - coverage. The promise is ``P(label in set) >= coverage`` over the calibration rows and the new row, for any network,
    if they are exchangeable and the network (and a temperature, if logits were scaled) has not seen the calibration rows.
    Given one calibration set, the rate of misses follows :func:`~pushforward.detection.false_alarm_distribution` with
    ``alpha = 1 - coverage``; ``guarantee="pac"`` bounds this rate.

    The promise is about all rows. Among the rows that another rule accepts, up to (1 - coverage) / P(accepted) may be
    missed. To promise coverage among them, fix the rule first, and fit the sets on other rows that it accepts.

    Scores of labels, from probabilities softmax(logits):

    - "lac": 1 - p (Sadinle et al. 2019): the smallest sets on average; a set may be empty, which says that no label fits.
    - "aps": probability of the likelier labels plus u p (Romano et al. 2020): sets follow the difficulty of the row.
    - "raps": "aps" with a penalty for labels beyond a rank (Angelopoulos et al. 2021): smaller sets where there are many
      classes.

    The number u of a row is a function of its logits and the seed, so equal rows get equal sets, whatever is scored with them.
    It is continuous, so the rounding by which a network's logits depend on the batch hardly ever changes a set. The promise
    needs no randomness of u, since it is the same function of every row. With ``randomized=False``, u = 1, and sets are larger.

    Args:
        method: "lac", "aps" or "raps".
        coverage: promised probability that the set contains the label.
        guarantee: "marginal", or "pac": with probability 1 - ``delta`` over the calibration rows, the coverage given them
            is at least ``coverage``.
        delta: of the "pac" guarantee.
        per_class: promise the coverage for each class (Mondrian; Vovk et al. 2005): a label is compared with the
            calibration rows of its class alone. A class with too few rows is in every set and named in
            ``always_included``.
        randomized: whether u is this function or 1.
        penalty: of "raps".
        rank: number of labels without a penalty, of "raps".
        never_empty: whether an empty set becomes the likeliest label; coverage can only grow.
        seed: of this function, any integer.

    Attributes:
        n_classes: number of classes K.
        always_included: classes that had too few calibration rows for ``per_class``.

    Raises:
        ConfigError: for an impossible option.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> labels = rng.integers(3, size=500)
        >>> logits = 2 * np.eye(3)[labels] + rng.normal(size=(500, 3))
        >>> sets = PredictionSets("lac", coverage=0.9).fit(logits, labels)
        >>> sets([[5.0, 0.0, 0.0], [2.0, 2.0, -3.0]])
        array([[ True, False, False],
               [ True,  True, False]])
    """

    n_classes: int
    always_included: tuple[int, ...]

    def __init__(
        self,
        method: str = "aps",
        *,
        coverage: float = 0.9,
        guarantee: Guarantee = "marginal",
        delta: float = 0.05,
        per_class: bool = False,
        randomized: bool = True,
        penalty: float = 0.01,
        rank: int = 5,
        never_empty: bool = False,
        seed: int = 0,
    ) -> None:
        check_choice("method", method, ("lac", "aps", "raps"))
        check_number("coverage", coverage, 0, 1)
        if 1 - coverage < SMALLEST_ALPHA:
            raise ConfigError(f"coverage must be at most 1 - {SMALLEST_ALPHA:g}; got {coverage!r}.")
        rows_needed(1 - coverage, guarantee, delta)  # checks the guarantee and delta
        check_positive("penalty", penalty, zero=True)
        check_integer("rank", rank, 0)
        check_integer("seed", seed, None)
        self.options: dict[str, Any] = {
            "method": method, "coverage": float(coverage), "guarantee": guarantee, "delta": float(delta),
            "per_class": bool(per_class), "randomized": bool(randomized), "penalty": float(penalty), "rank": int(rank),
            "never_empty": bool(never_empty), "seed": int(seed),
        }  # fmt: skip
        self._calibrators: list[ConformalCalibrator | None] = []
        self._uniform = row_uniform  # that of earlier files is another

    def __repr__(self) -> str:
        fitted = f", {self.n_classes} classes" if self._calibrators else ", not fitted"
        return f"PredictionSets({self.options['method']!r}, coverage={self.options['coverage']:g}{fitted})"

    def fit(self, logits: ArrayLike, labels: ArrayLike) -> Self:
        """Calibrate on labeled rows that neither the network nor anything before the sets has seen.

        Args:
            logits: ``(n, K)``; log-probabilities are logits too.
            labels: ``(n,)``, integers from 0 to K - 1.

        Raises:
            CalibrationError: if the rows are too few for the coverage; it says how many are needed.
            InputError: for other shapes, NaN, or labels out of range.
        """
        z = logit_matrix(logits)
        y = class_labels(labels, *z.shape)
        self._uniform = row_uniform
        own = self._scores(z)[np.arange(len(y)), y]
        needed = self._rows_needed()
        if len(y) < needed:
            raise CalibrationError(
                f"a coverage of {self.options['coverage']:g} with the {self.options['guarantee']} guarantee needs at least "
                f"{needed} calibration rows and there are {len(y)}: use more rows or a smaller coverage."
            )
        parts = [own[y == k] for k in range(z.shape[1])] if self.options["per_class"] else [own]
        return self._set(z.shape[1], [part if len(part) >= needed else None for part in parts])

    def __call__(self, logits: ArrayLike) -> NDArray[np.bool_]:
        """Which labels are in the set of each row, ``(n, K)``.

        Raises:
            InputError: for logits of another number of classes, or NaN.
            ConfigError: before ``fit``.
        """
        z = self._checked(logits)
        sets = self._scores(z) < self._thresholds
        if self.options["never_empty"]:
            empty = ~sets.any(1)
            sets[empty, z[empty].argmax(1)] = True
        return sets

    def p_values(self, logits: ArrayLike) -> NDArray[np.float64]:
        """Conformal p-value of each label, ``(n, K)``: for the true label ``P(p <= a) <= a``; 1 for ``always_included``.

        The largest p-value of a row is its credibility; a small one says that no label fits.

        Raises:
            InputError: for logits of another number of classes, or NaN.
            ConfigError: before ``fit``.
        """
        scores = self._scores(self._checked(logits))
        columns = self._calibrators * (self.n_classes if len(self._calibrators) == 1 else 1)
        return np.stack(
            [np.ones(len(scores)) if one is None else one.p_value(scores[:, k]) for k, one in enumerate(columns)],
            axis=1,
        )

    def pack(self, prefix: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Description (plain JSON types) and tensors for a file; the tensors' names begin with ``prefix``."""
        self._require_fitted()
        counts = [0 if one is None else one.n for one in self._calibrators]
        scores = [one.scores for one in self._calibrators if one is not None]
        uniform = "hash" if self._uniform is hashed_uniform else "continuous"
        description = self.options | {"n_classes": self.n_classes, "counts": counts, "uniform": uniform}
        return description, {f"{prefix}scores": torch.from_numpy(np.concatenate([np.empty(0), *scores]))}

    @classmethod
    def unpack(cls, description: Any, tensors: dict[str, Tensor], prefix: str) -> Self:
        """Rebuild sets from what :meth:`pack` returned; both may come from an untrusted file.

        Raises:
            StorageError: for parts that do not fit each other.
        """
        try:
            options = dict(description)
            classes, counts = check_integer("n_classes", options.pop("n_classes"), 2), options.pop("counts")
            uniform = check_choice("uniform", options.pop("uniform", "hash"), ("hash", "continuous"))
            sets = cls(**options)
            sets._uniform = hashed_uniform if uniform == "hash" else row_uniform
            scores = tensors[f"{prefix}scores"].numpy()
            parts = [check_integer("count", count, 0) for count in counts]
            if scores.dtype != np.float64 or scores.shape != (sum(parts),):
                raise InputError("the scores do not fit their numbers")
            if len(parts) != (classes if options["per_class"] else 1):
                raise InputError("the numbers of scores do not fit the classes")
            ends = np.cumsum(parts)
            pieces = [scores[end - count : end] if count else None for end, count in zip(ends, parts, strict=True)]
            return sets._set(classes, pieces)
        except (TypeError, KeyError, ValueError) as error:
            raise StorageError(
                f"its prediction sets are not ones that pushforward writes: {in_words(error)}"
            ) from error

    def _set(self, classes: int, parts: list[NDArray[np.float64] | None]) -> Self:
        options = self.options
        self.n_classes = classes
        self._calibrators = [None if part is None else ConformalCalibrator(part) for part in parts]
        self.always_included = tuple(k for k, one in enumerate(self._calibrators) if one is None)
        self._thresholds = np.array(
            [
                np.inf
                if one is None
                else one.score_threshold(1 - options["coverage"], options["guarantee"], options["delta"])
                for one in self._calibrators
            ]
        )
        return self

    def _scores(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        options = self.options
        if options["method"] == "lac":
            return least_ambiguous_scores(logits)
        uniform = self._uniform(logits, options["seed"]) if options["randomized"] else np.ones(len(logits))
        penalty = options["penalty"] if options["method"] == "raps" else 0.0
        return adaptive_scores(logits, uniform, penalty, options["rank"])

    def _rows_needed(self) -> int:
        return rows_needed(1 - self.options["coverage"], self.options["guarantee"], self.options["delta"])

    def _checked(self, logits: ArrayLike) -> NDArray[np.float64]:
        self._require_fitted()
        return logit_matrix(logits, self.n_classes)

    def _require_fitted(self) -> None:
        if not self._calibrators:
            raise ConfigError("these PredictionSets are not fitted yet: call fit(logits, labels) first.")
