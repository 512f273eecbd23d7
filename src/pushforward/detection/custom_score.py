"""`CustomScore`: a detector or a function of the user as the score of a guard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from pushforward import io
from pushforward.data import Schema
from pushforward.detection.input_score import InputScore
from pushforward.detection.scorers import Scorer, scorer_of
from pushforward.detection.scores import Score
from pushforward.errors import (
    ConfigError,
    InputError,
    PushforwardError,
    SchemaError,
    StorageError,
    in_words,
    warn_caller,
)
from pushforward.numerics.checks import check_integer

__all__ = ["CustomScore", "fit_custom_score"]

_PROBES = 8
"""Rows on which a score is compared with the one that a file was written with."""

_NEAR = 1e-5
"""Largest difference of two equal scores, relative to the largest of them: a batch of another size may round differently."""


class CustomScore(InputScore):
    """Scores of tables of numbers or of images by a detector or a function of the user.

    Columns are those of a schema, in its order, as float64, with NaN where a cell is missing. A row with an infinite number has
    the score +inf. A few rows with shuffled cells, and their scores, recognize the detector where a file is read.

    Args:
        scorer: the fitted detector.
        probes: rows ``(k, d)`` or images whose cells are those of training rows, shuffled within columns.
        schema: of the table; None for images.
        shape: (channels, height, width) of images; None for a table.
        expected: scores of the probes; None to compute them.
    """

    def __init__(
        self,
        scorer: Scorer,
        probes: np.ndarray | Tensor,
        *,
        schema: Schema | None = None,
        shape: Sequence[int] | None = None,
        expected: np.ndarray | None = None,
    ) -> None:
        self.reads = "tables" if shape is None else "images"  # pyright: ignore[reportAttributeAccessIssue]
        self.schema, self.shape = schema, None if shape is None else tuple(shape)
        self._scorer, self._probes, self._name = scorer, probes, scorer.name
        self._expected = scorer(probes) if expected is None else expected

    @property
    def scorer(self) -> Any:
        """The fitted detector, or the function."""
        return self._scorer.detector

    @property
    def describable(self) -> bool:
        """Whether a file can contain the detector: a :class:`~pushforward.detection.scores.Score` of this library."""
        return isinstance(self.scorer, Score)

    def __repr__(self) -> str:
        return f"CustomScore({self._scorer.name} of {self.reads})"

    def score(self, inputs: Any) -> np.ndarray:
        """The score of each row, float64 ``(n,)``; +inf for a row with an infinite number.

        Raises:
            InputError: for other inputs than those of ``fit``, or that the detector refuses.
        """
        rows = self._rows(inputs)
        far = _infinite(rows)
        found = np.full(len(rows), np.inf)
        if not far.all():
            found[~far] = self._scorer(rows[~far] if far.any() else rows)
        return found

    def pack(self, prefix: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Description and tensors for a file; they contain the detector only if it is :attr:`describable`."""
        tensors = {
            f"{prefix}probes": torch.as_tensor(self._probes).clone(),
            f"{prefix}expected": torch.from_numpy(self._expected.copy()),
        }
        description = {
            "name": self._scorer.name,
            "schema": None if self.schema is None else self.schema.to_json(),
            "shape": self.shape,
            "detector": None,
        }
        if self.describable:
            description["detector"], more = io.pack(self.scorer, f"{prefix}detector.")
            tensors |= more
        return description, tensors

    @classmethod
    def unpack(cls, description: Any, tensors: dict[str, Tensor], prefix: str, detector: Any = None) -> Self:
        """Rebuild a score from what :meth:`pack` returned.

        Args:
            description: from the file.
            tensors: from the file.
            prefix: of the names of its tensors.
            detector: the fitted detector, if the file does not contain it.

        Raises:
            StorageError: for parts that do not fit each other. :meth:`recognize` says whether the detector is the same.
        """
        try:
            name, schema, shape, described = (description[key] for key in ("name", "schema", "shape", "detector"))
            probes, expected = tensors[f"{prefix}probes"], tensors[f"{prefix}expected"].numpy()
            schema = None if schema is None else Schema.from_json(schema)
            shape = None if shape is None else tuple(check_integer("shape", size) for size in shape)
            width = shape if shape is not None else (len(schema or ()),)
            wrong = (shape is None) == (schema is None) or tuple(probes.shape[1:]) != width
            if wrong or expected.dtype != np.float64 or expected.shape != (len(probes),):
                raise InputError("its probes do not fit its columns")
            if described is not None:
                detector = io.unpack(described, tensors, f"{prefix}detector.")
                if not isinstance(detector, Score):
                    raise InputError("its detector is not a score")
        except StorageError:
            raise
        except (TypeError, KeyError, AttributeError, PushforwardError) as error:
            raise StorageError(f"its score is not one that pushforward writes: {in_words(error)}") from error
        rows = probes if shape is not None else probes.numpy()
        score = cls(scorer_of(detector, None), rows, schema=schema, shape=shape, expected=expected)
        score._name = str(name)[:80]
        return score

    def recognize(self) -> None:
        """Check that the detector gives the stored rows the scores that the one before gave them.

        Raises:
            StorageError: if it does not, with both scores.
        """
        name = self._name
        try:
            found = self._scorer(self._probes)
        except (
            Exception
        ) as error:  # of a detector that is not fitted, or reads other columns: every library has its own errors
            raise StorageError(
                f"score={self._scorer.name} cannot score rows as the guard's {name} did: {' '.join(str(error).split())[:200]}"
            ) from error
        differ = ~_close(found, self._expected)
        if differ.any():
            k = int(differ.argmax())
            raise StorageError(
                f"score={self._scorer.name} is not the score that the guard was calibrated with ({name}): of a stored row it gives "
                f"{found[k]:.6g}, and that one gave {self._expected[k]:.6g}, so the promise would not hold. Give the fitted detector itself."
            )

    def _rows(self, inputs: Any) -> np.ndarray | Tensor:
        if self.shape is not None:
            if tuple(inputs.shape[1:]) != self.shape:
                raise InputError(f"this guard reads images of shape {self.shape}; got {tuple(inputs.shape[1:])}.")
            return inputs
        assert self.schema is not None
        encoded, problems = self.schema.encode(inputs, owner="Guard", warn=False)
        for problem in problems:
            warn_caller(problem.as_warning())
        return encoded

    def _unsupported(self, method: str) -> ConfigError:
        return ConfigError(
            f"{method} is for the score that a guard fits itself, and this guard has score={self._scorer.name}."
        )


def fit_custom_score(rows: Any, detector: Any, seed: int) -> CustomScore:
    """Fit a detector to rows, or take a function as it is.

    Args:
        rows: a tensor of images, a pyarrow table or a float64 matrix.
        detector: see :func:`~pushforward.detection.scorers.scorer_of`.
        seed: of the probes.

    Raises:
        InputError: where the detector refuses the rows.
        SchemaError: for a column of words.
        ConfigError: for a score of a row that depends on other rows or on chance, with which p-values would promise nothing.
    """
    rng = np.random.default_rng(seed)
    if isinstance(rows, Tensor):
        schema, shape, values = None, tuple(rows.shape[1:]), rows
        flat = rows.flatten(1).numpy()
        probes: np.ndarray | Tensor = torch.from_numpy(_shuffled(flat, rng)).reshape(-1, *shape)
    else:
        schema, values = Schema.infer_encode(rows)
        if words := [column.name for column in schema.columns if column.kind == "categorical"]:
            raise SchemaError(
                f"score= reads numbers, and the column {words[0]!r} has words: turn it into numbers first, or leave it out (ignore=)."
            )
        shape, values = None, values[~_infinite(values)]
        probes = _shuffled(values, rng)
    score = CustomScore(scorer_of(detector, values), probes, schema=schema, shape=shape)
    _require_own(score, probes)
    return score


def _shuffled(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A few rows whose cells are those of other rows, so that no row can be read from a file."""
    count = min(_PROBES, len(rows))
    return np.stack([rows[rng.integers(len(rows), size=count), j] for j in range(rows.shape[1])], axis=1)


def _require_own(score: CustomScore, probes: np.ndarray | Tensor) -> None:
    """Check that the score of a row depends on nothing but the row."""
    together = score._expected
    alone = np.concatenate([score._scorer(probes[k : k + 1]) for k in range(len(probes))])
    if not _close(together, alone).all():
        k = int((~_close(together, alone)).argmax())
        raise ConfigError(
            f"score={score._scorer.name} gives a row {together[k]:.6g} among others and {alone[k]:.6g} by itself: with a score that depends "
            "on other rows or on chance, p-values promise nothing. Give one that draws nothing and reads each row by itself, such as a "
            "function that calls it with one row at a time."
        )


def _close(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    finite = np.isfinite(a) & np.isfinite(b)
    scale = max((np.abs(v[np.isfinite(v)]).max(initial=0.0) for v in (a, b)), default=0.0)
    with np.errstate(invalid="ignore"):
        return np.where(finite, np.abs(a - b) <= _NEAR * max(scale, 1e-300), a == b)


def _infinite(rows: np.ndarray | Tensor) -> np.ndarray:
    """Which rows have an infinite number."""
    if isinstance(rows, Tensor):
        return torch.isinf(rows).flatten(1).any(1).numpy()
    return np.asarray(np.isinf(rows).any(axis=1))
