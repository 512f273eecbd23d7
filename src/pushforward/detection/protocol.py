"""Checks of an evaluation: the same code for both groups, independence of the batch, and determinism."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pushforward.detection.validation import plain_array
from pushforward.errors import InputError
from pushforward.numerics.checks import check_integer, check_positive, check_seed
from pushforward.numerics.conversion import as_tensor

__all__ = ["CheckResult", "ProtocolReport", "protocol_check"]

Scorer = Callable[[Tensor], Any]


@dataclass(frozen=True)
class CheckResult:
    """The result of one check of an evaluation.

    Attributes:
        name: name of the check.
        passed: whether the evaluation passed it.
        detail: observed result, such as the largest difference.

    Example:
        >>> from pushforward.detection import CheckResult
        >>> CheckResult("equal sizes", True, "both sets have 28 x 28 pixels").passed
        True
    """

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class ProtocolReport:
    """The result of :func:`protocol_check`.

    Example:
        >>> from pushforward.detection import CheckResult, ProtocolReport
        >>> ProtocolReport((CheckResult("equal sizes", True, "both sets have 28 x 28 pixels"),)).passed
        True
    """

    checks: tuple[CheckResult, ...]

    @property
    def passed(self) -> bool:
        """Whether all checks passed."""
        return all(check.passed for check in self.checks)

    @property
    def failures(self) -> tuple[CheckResult, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if not check.passed)

    def require(self) -> None:
        """Raise an error if a check failed.

        Raises:
            InputError: if a check failed; the message names the failed checks.
        """
        if not self.passed:
            raise InputError(
                "the evaluation is not sound: " + "; ".join(f"{c.name}: {c.detail}" for c in self.failures)
            )

    def __str__(self) -> str:
        return "\n".join(f"{'ok  ' if c.passed else 'FAIL'} {c.name}: {c.detail}" for c in self.checks)


def protocol_check(
    score: Scorer,
    normal: Any,
    anomalous: Any,
    *,
    score_anomalous: Scorer | None = None,
    rows: int = 32,
    tolerance: float = 1e-6,
    seed: int = 0,
) -> ProtocolReport:
    """Check on a few rows that the scores of normal and anomalous rows are comparable.

    - one type and shape: both groups have the same dtype and row shape;
    - determinism: a second call with the same rows gives the same scores;
    - rows unchanged: scoring does not change its input;
    - batch independence: a row gets the same score alone, in a shuffled batch, and in a batch of one group;
    - one code path: if the two groups are scored by two functions, the functions agree;
    - no NaN.

    Args:
        score: function from rows ``(n, *shape)`` to n numbers, higher for more anomalous.
        normal: normal rows ``(n, *shape)``, array or tensor.
        anomalous: anomalous rows ``(m, *shape)``, array or tensor.
        score_anomalous: function that scores the anomalous rows, if it is not ``score``.
        rows: number of rows of each group to check, chosen at random.
        tolerance: largest accepted difference, relative to the range of the scores; matrix products of different sizes
            round differently.
        seed: seed of the choice of rows, any integer.

    Returns:
        The report; ``report.require()`` raises an error if a check failed.

    Raises:
        InputError: for no rows, or scores that are not one number for each row.
        ConfigError: for a number of rows below 1, a negative tolerance, or a seed that is no integer.

    Example:
        >>> import torch
        >>> from pushforward.detection import protocol_check
        >>> normal, anomalous = torch.randn(50, 3), torch.randn(50, 3) + 2
        >>> protocol_check(lambda x: x.square().sum(1), normal, anomalous).passed
        True
        >>> report = protocol_check(lambda x: (x - x.mean(0)).square().sum(1), normal, anomalous)
        >>> [check.name for check in report.failures]
        ['batch independence']
    """
    rng, rows = np.random.default_rng(check_seed(seed)), check_integer("rows", rows)
    tolerance = check_positive("tolerance", tolerance, zero=True)
    groups = [_sample(normal, "normal", rows, rng), _sample(anomalous, "anomalous", rows, rng)]
    alike = groups[0].dtype == groups[1].dtype and groups[0].shape[1:] == groups[1].shape[1:]
    described = " and ".join(f"{group.dtype} {tuple(group.shape[1:])}" for group in groups)
    paths = [CheckResult("one type and shape", alike, described)]
    if not alike:
        return ProtocolReport(tuple(paths))
    both = torch.cat(groups)
    given = both.clone()
    first = _scores(score, given)
    unchanged = bool(((given == both) | (given.isnan() & both.isnan())).all())
    finite = first[np.isfinite(first)]
    scale = float(np.ptp(finite)) if finite.size else 0.0

    def compare(name: str, found: NDArray[np.float64], what: str) -> CheckResult:
        same = (found == first) | (np.isnan(found) & np.isnan(first))
        with np.errstate(invalid="ignore"):
            gap = np.nan_to_num(np.where(same, 0.0, np.abs(found - first)), nan=np.inf, posinf=np.inf)
        off = int(np.sum(gap > tolerance * (scale or 1.0)))
        if not off:
            return CheckResult(name, True, f"{what}: largest difference {gap.max():.3g}")
        detail = (
            f"{what} changes {off} of {first.size} scores, by up to {gap.max():.3g} (range of the scores: {scale:.3g})"
        )
        return CheckResult(name, False, detail)

    def batches(what: str, *parts: NDArray[np.intp]) -> CheckResult:
        found = np.empty_like(first)
        for part in parts:
            found[part] = _scores(score, both[torch.from_numpy(part)])
        return compare("batch independence", found, what)

    indices = np.arange(len(both))
    neighbors = (
        batches("a batch of one row", *indices[:, None]),
        batches("another order", rng.permutation(indices)),
        batches("a batch of one group only", indices[: len(groups[0])], indices[len(groups[0]) :]),
    )
    nans = int(np.isnan(first).sum())
    return ProtocolReport(
        (
            *paths,
            compare("determinism", _scores(score, both.clone()), "a second call"),
            CheckResult("rows unchanged", unchanged, "unchanged" if unchanged else "scoring changes its input"),
            next((check for check in neighbors if not check.passed), neighbors[0]),
            compare(
                "one code path", _scores(score_anomalous or score, both.clone()), "the function for anomalous rows"
            ),
            CheckResult("no NaN", nans == 0, f"{nans} of {first.size} scores are NaN"),
        )
    )


def _sample(data: Any, name: str, rows: int, rng: np.random.Generator) -> Tensor:
    """Some rows of one group, chosen at random."""
    try:
        tensor = as_tensor(data.to_numpy() if hasattr(data, "to_numpy") else data)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"the {name} rows must be an array of numbers, one row per input: {error}") from error
    if tensor.dim() < 1 or len(tensor) == 0:
        raise InputError(f"protocol_check needs at least one {name} row; got none.")
    return tensor[torch.from_numpy(rng.permutation(len(tensor))[:rows])]


def _scores(score: Scorer, rows: Tensor) -> NDArray[np.float64]:
    """The scores of rows, including NaN, as float64."""
    values = plain_array(score(rows), "the scores")
    if values.shape != (len(rows),) or values.dtype.kind not in "biuf":
        raise InputError(
            f"a score must return one number for each row; for {len(rows)} rows it returned {values.dtype} of shape {values.shape}."
        )
    return values.astype(np.float64)
