"""Whether an evaluation is what it seems: one code path for both sides, no row that sees its neighbors, no hidden noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pushforward.errors import InputError
from pushforward.numerics.checks import check_integer

__all__ = ["CheckResult", "ProtocolReport", "protocol_check"]

Scorer = Callable[[Tensor], Any]


@dataclass(frozen=True)
class CheckResult:
    """One property of an evaluation.

    Attributes:
        name: of the property.
        passed: whether it holds.
        detail: what was seen, with the largest difference where it does not hold.
    """

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class ProtocolReport:
    """What :func:`protocol_check` found."""

    checks: tuple[CheckResult, ...]

    @property
    def passed(self) -> bool:
        """Whether every property holds."""
        return all(check.passed for check in self.checks)

    @property
    def failures(self) -> tuple[CheckResult, ...]:
        """The properties that do not hold."""
        return tuple(check for check in self.checks if not check.passed)

    def require(self) -> None:
        """Refuse to go on with an evaluation that is not sound.

        Raises:
            InputError: naming what does not hold.
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
    """Check on a few rows of both sides that scores mean what a comparison of the two sides takes them to mean.

    - determinism: the same rows give the same scores twice;
    - rows left alone: scoring does not change its input;
    - batch independence: a row alone, in a shuffled batch, and among rows of the other side scores the same;
    - one code path: both sides have the same type and shape, and where two functions score them, these agree;
    - no NaN.

    Args:
        score: rows ``(n, *shape)`` to n numbers, higher for more anomalous.
        normal: normal rows ``(n, *shape)``, array or tensor.
        anomalous: anomalous rows, likewise.
        score_anomalous: what scores the anomalous rows, if it is not ``score``; an evaluation with two functions is sound
            only if they give the same numbers.
        rows: how many rows of each side are looked at, at random.
        tolerance: largest difference that counts as none, relative to the spread of the scores: matrix products of
            different sizes round differently.
        seed: of the choice of rows.

    Returns:
        The report; ``report.require()`` raises what failed.

    Raises:
        InputError: for no rows, or scores that are not one number a row.
        ConfigError: for a number of rows below 1.

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
    rng, rows = np.random.default_rng(seed), check_integer("rows", rows)
    sides = [_some(normal, "normal", rows, rng), _some(anomalous, "anomalous", rows, rng)]
    alike = sides[0].dtype == sides[1].dtype and sides[0].shape[1:] == sides[1].shape[1:]
    described = " and ".join(f"{side.dtype} {tuple(side.shape[1:])}" for side in sides)
    paths = [CheckResult("one type and shape", alike, described)]
    if not alike:
        return ProtocolReport(tuple(paths))
    both = torch.cat(sides)
    given = both.clone()
    first = _scores(score, given)
    kept = torch.equal(given, both)
    finite = first[np.isfinite(first)]
    scale = float(np.ptp(finite)) if finite.size else 0.0

    def compare(name: str, found: NDArray[np.float64], what: str) -> CheckResult:
        same = (found == first) | (np.isnan(found) & np.isnan(first))
        with np.errstate(invalid="ignore"):
            gap = np.nan_to_num(np.where(same, 0.0, np.abs(found - first)), nan=np.inf, posinf=np.inf)
        off = int(np.sum(gap > tolerance * (scale or 1.0)))
        if not off:
            return CheckResult(name, True, f"{what}: largest difference {gap.max():.3g}")
        detail = f"{what} changes {off} of {first.size} scores, by up to {gap.max():.3g} where scores spread over {scale:.3g}"
        return CheckResult(name, False, detail)

    def batches(what: str, *parts: NDArray[np.intp]) -> CheckResult:
        found = np.empty_like(first)
        for part in parts:
            found[part] = _scores(score, both[torch.from_numpy(part)])
        return compare("batch independence", found, what)

    places = np.arange(len(both))
    neighbors = (
        batches("a batch of one row", *places[:, None]),
        batches("another order", rng.permutation(places)),
        batches("a batch of one side only", places[: len(sides[0])], places[len(sides[0]) :]),
    )
    nans = int(np.isnan(first).sum())
    return ProtocolReport(
        (
            *paths,
            compare("determinism", _scores(score, both.clone()), "a second call"),
            CheckResult("rows left alone", kept, "unchanged" if kept else "scoring writes into its input"),
            next((check for check in neighbors if not check.passed), neighbors[0]),
            compare(
                "one code path", _scores(score_anomalous or score, both.clone()), "the function for anomalous rows"
            ),
            CheckResult("no NaN", nans == 0, f"{nans} of {first.size} scores are NaN"),
        )
    )


def _some(data: Any, name: str, rows: int, rng: np.random.Generator) -> Tensor:
    """Some rows of one side, at random."""
    try:
        tensor = torch.as_tensor(data)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"the {name} rows must be an array of numbers, one row an input: {error}") from error
    if tensor.dim() < 1 or len(tensor) == 0:
        raise InputError(f"there are no {name} rows to check.")
    return tensor[torch.from_numpy(rng.permutation(len(tensor))[:rows])]


def _scores(score: Scorer, rows: Tensor) -> NDArray[np.float64]:
    """The scores of rows, NaN and all."""
    result = score(rows)
    values = result.detach().cpu().numpy() if isinstance(result, Tensor) else np.asarray(result)
    if values.shape != (len(rows),):
        raise InputError(f"a score gives one number a row: for {len(rows)} rows it gave shape {values.shape}.")
    return values.astype(np.float64)
