"""Watching a stream: sequential conformal p-values, a martingale that bets against them, and an alarm with Ville's bound."""

from __future__ import annotations

import bisect
import math
import numbers
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pushforward.detection.martingales import MARTINGALES, BettingMartingale
from pushforward.detection.validation import score_array
from pushforward.errors import StorageError
from pushforward.io import read, write
from pushforward.numerics.checks import check_choice, check_integer, check_number

__all__ = ["Monitor", "SequentialPValues"]


class SequentialPValues:
    """Each score of a stream ranked among all that came before it and itself, ties broken at random.

    ``p_t = (#{i < t: s_i > s_t} + u_t #{i <= t: s_i = s_t}) / t`` with u_t uniform (Vovk, Nouretdinov, Gammerman 2003).
    If the scores are exchangeable the p_t are **independent** and uniform on (0, 1), which p-values from one fixed
    calibration set are not. A point costs O(log n) comparisons. The u_t depend on the seed and on t alone, so feeding
    scores one at a time or many gives the same numbers.

    Args:
        reference: scores that came before the stream and are exchangeable with it, as calibration scores; they are ranked
            against but get no p-value.
        seed: of the u_t.

    Raises:
        InputError: for NaN, or anything that is not a one-dimensional array of real numbers.
        ConfigError: for a seed that is no whole number of at least 0.

    Example:
        >>> from pushforward.detection import SequentialPValues
        >>> stream = SequentialPValues(reference=range(99), seed=0)
        >>> [bool(p <= bound) for p, bound in zip(stream([1000, 50.5, -1]), (0.01, 0.6, 1.0))]
        [True, True, True]
    """

    def __init__(self, reference: ArrayLike = (), seed: int = 0) -> None:
        check_integer("seed", seed, 0, most=2**63 - 1)
        self.seed = seed
        self.seen: list[float] = np.sort(score_array(reference, "the reference scores", may_be_empty=True)).tolist()

    def __call__(self, scores: ArrayLike) -> NDArray[np.float64]:
        """P-values of the next scores of the stream, in (0, 1]; a single number gives an array of one.

        Raises:
            InputError: for NaN or a wrong shape or type; nothing of the batch is then remembered.
        """
        one = isinstance(scores, numbers.Real) or getattr(scores, "ndim", None) == 0
        new = score_array([scores] if one else scores, "the scores", may_be_empty=True)  # pyright: ignore[reportArgumentType]
        uniform = self._uniform(len(self.seen), new.size)
        p = np.empty(new.size)
        seen = self.seen
        for k, score in enumerate(new.tolist()):
            low = bisect.bisect_left(seen, score)
            high = bisect.bisect_right(seen, score, low)
            above, ties = len(seen) - high, high - low + 1
            p[k] = (above + uniform[k] * ties) / (len(seen) + 1)
            seen.insert(high, score)
        return p

    def _uniform(self, start: int, size: int) -> NDArray[np.float64]:
        """u_t for t = start, ..., start + size - 1, strictly between 0 and 1: one block of a counter-based generator each."""
        bits = np.random.Philox(key=self.seed, counter=start).random_raw(4 * size)[::4]
        return ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


class Monitor:
    """Alarm when a stream of scores stops looking like what came before: at any time, with one bound for all times.

    The sequential p-values feed a test martingale M (:mod:`pushforward.detection.martingales`), and the alarm is raised when
    M reaches 1/alpha. **What holds:** as long as reference and stream are exchangeable, an alarm is *ever* raised with
    probability at most alpha, however long the stream is (Ville 1939; Vovk, Nouretdinov, Gammerman 2003). **What it
    needs:** scores of rows that are independent of each other in normal times: a seasonal or correlated stream is not
    exchangeable, and will alarm. It does not say which rows are anomalous; a share of anomalies, or a drift, is what it finds.

    Args:
        reference: scores of held-out normal rows, higher is more anomalous; without them the stream must first teach what is
            normal, and its first p-values are nearly all tie-breaking noise.
        alpha: bound on the probability of a false alarm at any time.
        betting: "mixture" needs no choice and finds early changes fast; "restarted" finds late ones fast; "power" stakes on
            one ``epsilon``.
        epsilon: of "power".
        seed: of the random ties.

    Attributes:
        count: scores of the stream so far.
        log_evidence: log M now.
        highest: the largest log M so far.
        alarm_at: how many scores had come when the alarm was raised, or None. It stays until :meth:`restart`.

    Raises:
        InputError: for scores that are no one-dimensional array of numbers, or NaN.
        ConfigError: for an option that makes no sense.

    Example:
        >>> import numpy as np
        >>> from pushforward.detection import Monitor
        >>> rng = np.random.default_rng(0)
        >>> monitor = Monitor(reference=rng.normal(size=500), alpha=0.01)
        >>> _ = monitor.update(rng.normal(size=300))               # one, or many at a time
        >>> monitor.alarm
        False
        >>> _ = monitor.update(rng.normal(size=300) + 1.5)         # drift
        >>> monitor.alarm, 300 < monitor.alarm_at < 350
        (True, True)
    """

    def __init__(
        self,
        reference: ArrayLike = (),
        alpha: float = 0.01,
        *,
        betting: str = "mixture",
        epsilon: float = 0.5,
        seed: int = 0,
    ) -> None:
        check_choice("betting", betting, MARTINGALES)
        self.alpha, self.betting, self.epsilon, self.seed = check_number("alpha", alpha, 0, 1), betting, epsilon, seed
        self.p_values = SequentialPValues(reference, seed)
        self.restart()

    def restart(self) -> None:
        """Begin anew with a capital of 1, after an alarm that has been dealt with; what was seen stays what is ranked against.

        Each start has its own bound alpha.
        """
        self.martingale = self._new_martingale()
        self.count, self.log_evidence, self.highest = 0, 0.0, 0.0
        self.alarm_at: int | None = None

    def _new_martingale(self) -> BettingMartingale:
        kind = MARTINGALES[self.betting]
        return kind(self.epsilon) if self.betting == "power" else kind()  # pyright: ignore[reportCallIssue]

    @property
    def alarm(self) -> bool:
        """Whether the evidence has ever reached 1/alpha."""
        return self.alarm_at is not None

    @property
    def p_value(self) -> float:
        """1 / the largest M so far, at most 1: a p-value of "the stream is exchangeable" that holds at any time."""
        return math.exp(-self.highest)

    def update(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Feed the next scores, one number or an array ``(m,)`` in the order of time.

        Returns:
            log M after each of them, shape (m,).

        Raises:
            InputError: for NaN or a wrong shape or type; nothing of the batch is then remembered.
        """
        evidence = self.martingale.update(self.p_values(scores))
        if evidence.size:
            reached = np.flatnonzero(evidence >= -math.log(self.alpha))
            if self.alarm_at is None and reached.size:
                self.alarm_at = self.count + int(reached[0]) + 1
            self.count += evidence.size
            self.log_evidence = float(evidence[-1])
            self.highest = max(self.highest, float(evidence.max()))
        return evidence

    def __repr__(self) -> str:
        state = f"alarm at {self.alarm_at}" if self.alarm else "quiet"
        return f"Monitor({self.count} scores, {state}, log evidence {self.log_evidence:.3g}, alpha={self.alpha:g}, {self.betting})"

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """All that it remembers: plain JSON types, and two float64 tensors. For files that hold more than a monitor."""
        options = {"alpha": self.alpha, "betting": self.betting, "epsilon": self.epsilon, "seed": self.seed}
        header = {"options": options, "count": self.count, "alarm_at": self.alarm_at}
        figures = [self.log_evidence, self.highest, *self.martingale.state]
        return header, {
            "seen": torch.tensor(self.p_values.seen, dtype=torch.float64),
            "figures": torch.tensor(figures, dtype=torch.float64),
        }

    @classmethod
    def from_state(cls, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Monitor:
        """The monitor of a :meth:`state`; it goes on with the very numbers that the other would have given.

        Raises:
            StorageError: if it is not the state of a monitor.
        """
        try:
            seen, figures = tensors["seen"], tensors["figures"].tolist()
            number, alarm_at = header["count"], header["alarm_at"]
            monitor = cls(seen.numpy(), **header["options"])
            right = all(
                (
                    seen.dtype == torch.float64,
                    all(math.isfinite(value) or value == -math.inf for value in figures),
                    len(figures) == 2 + len(monitor.martingale.state),
                    type(number) is int and 0 <= number <= len(seen),
                    alarm_at is None or (type(alarm_at) is int and 1 <= alarm_at <= number),
                )
            )
        except Exception as error:
            raise StorageError(f"this is not the state of a monitor: {error}") from error
        if not right:
            raise StorageError("this is not the state of a monitor that pushforward wrote.")
        monitor.count, monitor.alarm_at = number, alarm_at
        monitor.log_evidence, monitor.highest, *monitor.martingale.state = figures
        return monitor

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to one safetensors file, without pickle."""
        header, tensors = self.state()
        write(path, {"kind": "monitor", **header}, tensors)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Monitor:
        """Read it back; the file can hold anything and do nothing but fail.

        Raises:
            StorageError: if the file is damaged, foreign, or of a newer format.
        """
        return cls.from_state(*read(path, kind="monitor"))
