"""Monitoring of a stream: sequential conformal p-values, a test martingale, and an alarm with Ville's bound."""

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
from pushforward.errors import StorageError, warn_caller
from pushforward.io import read, write
from pushforward.numerics.checks import check_choice, check_integer, check_number

__all__ = ["Monitor", "SequentialPValues"]

_FIRST = 10
"""Scores of a stream after which their meaning is judged."""


def _are_ranks(scores: NDArray[np.float64], count: int) -> bool:
    """Whether all numbers can be p-values of ``count`` calibration rows."""
    if not ((scores > 0) & (scores <= 1)).all():  # an infinite score has no distance to a rank
        return False
    ranks = scores * (count + 1)
    return bool((np.abs(ranks - ranks.round()) < 1e-6).all())


class SequentialPValues:
    """P-values of a stream: the rank of each score among all scores so far, with ties broken at random.

    ``p_t = (#{i < t: s_i > s_t} + u_t #{i <= t: s_i = s_t}) / t`` with u_t uniform (Vovk, Nouretdinov, Gammerman 2003).
    If the scores are exchangeable, the p_t are **independent** and uniform on (0, 1). P-values from one fixed calibration set
    are not independent. Each score needs O(log n) comparisons. u_t depends only on the seed and t, so the p-values do not
    depend on how the stream is split into calls.

    Args:
        reference: earlier scores that are exchangeable with the stream, such as calibration scores; they are ranked against
            but get no p-values.
        seed: seed of the u_t, a nonnegative integer.

    Raises:
        InputError: for NaN, or anything that is not a one-dimensional array of real numbers.
        ConfigError: for a seed that is not a nonnegative integer.

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
            InputError: for NaN or a wrong shape or type; the state then does not change.
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
        """u_t for t = start, ..., start + size - 1, strictly between 0 and 1; t is the counter of the random generator."""
        bits = np.random.Philox(key=self.seed, counter=start).random_raw(4 * size)[::4]
        return ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


class Monitor:
    """Raise an alarm if the distribution of a stream of scores changes, with one bound on false alarms for all times.

    A test martingale M (:mod:`pushforward.detection.martingales`) is computed from sequential p-values, and the alarm is raised
    when M reaches 1/alpha. **Guarantee:** if reference and stream are exchangeable, the probability that an alarm is *ever*
    raised is at most alpha, for a stream of any length (Ville 1939; Vovk, Nouretdinov, Gammerman 2003). **Assumption:** the
    scores of a normal stream are independent. A seasonal or correlated stream is not exchangeable and will raise an alarm.
    The monitor detects drift, or a fraction of anomalies in the stream, but not which rows are anomalous.

    Args:
        reference: scores of held-out normal rows, higher is more anomalous. Without them the first p-values of the stream
            contain almost no information.
        alpha: largest probability of a false alarm over all times.
        betting: the test martingale: "mixture" has no parameters and detects early changes fast; "restarted" detects late
            changes fast; "power" uses one ``epsilon``.
        epsilon: exponent of "power".
        seed: seed of the random tie-breaking.

    Attributes:
        count: number of scores of the stream so far.
        log_evidence: current log M.
        highest: largest log M so far.
        alarm_at: number of scores at the time of the alarm, or None; it does not change until :meth:`restart`.

    Raises:
        InputError: for NaN, or scores that are not a one-dimensional array of real numbers.
        ConfigError: for an invalid option.

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
        seen = self.p_values.seen
        self._reference = (len(seen), seen[0], _are_ranks(np.array(seen), len(seen))) if len(seen) >= _FIRST else None
        self._looked_at = 0
        self.restart()

    def restart(self) -> None:
        """Reset the alarm and the capital; earlier scores are still used for ranking.

        The bound alpha applies to each restart separately.
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
        """1 / the largest M so far, at most 1: a p-value of "the stream is exchangeable" that is valid at any time."""
        return math.exp(-self.highest)

    def update(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Add the next scores of the stream: one number, or an array ``(m,)`` in temporal order.

        Returns:
            log M after each score, shape (m,).

        Raises:
            InputError: for NaN or a wrong shape or type; the state then does not change.

        Warns:
            PushforwardWarning: once, if these seem to be no anomaly scores: they are p-values, or all below the reference.
        """
        evidence = self.martingale.update(self.p_values(scores))
        if evidence.size:
            reached = np.flatnonzero(evidence >= -math.log(self.alpha))
            if self.alarm_at is None and reached.size:
                self.alarm_at = self.count + int(reached[0]) + 1
            self.count += evidence.size
            self.log_evidence = float(evidence[-1])
            self.highest = max(self.highest, float(evidence.max()))
            self._look_at(np.atleast_1d(np.asarray(scores, dtype=np.float64)))
        return evidence

    def _look_at(self, scores: NDArray[np.float64]) -> None:
        """Warn if the first scores of the stream have another sign or meaning than those of the reference."""
        if self._reference is None or self._looked_at < 0 or not scores.size:
            return
        count, lowest, on_grid = self._reference
        are_ranks = not on_grid and _are_ranks(scores, count)
        if self.alarm or not (are_ranks or (scores < lowest).all()):
            self._looked_at = -1
            return
        self._looked_at += scores.size
        if self._looked_at >= _FIRST:
            self._looked_at = -1
            said = "are multiples of 1 / (n + 1), as p-values are" if are_ranks else "are below all reference scores"
            warn_caller(
                f"the first {_FIRST} scores of the stream {said}, so this monitor would never see an anomaly: give it anomaly scores, of which "
                "higher is more anomalous, as guard.anomaly_score(rows)."
            )

    def __repr__(self) -> str:
        state = f"alarm at {self.alarm_at}" if self.alarm else "quiet"
        return f"Monitor({self.count} scores, {state}, log evidence {self.log_evidence:.3g}, alpha={self.alpha:g}, {self.betting})"

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The complete state as a JSON header and two float64 tensors, for files that contain more than a monitor."""
        options = {"alpha": self.alpha, "betting": self.betting, "epsilon": self.epsilon, "seed": self.seed}
        header = {"options": options, "count": self.count, "alarm_at": self.alarm_at}
        figures = [self.log_evidence, self.highest, *self.martingale.state]
        return header, {
            "seen": torch.tensor(self.p_values.seen, dtype=torch.float64),
            "figures": torch.tensor(figures, dtype=torch.float64),
        }

    @classmethod
    def from_state(cls, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Monitor:
        """Restore a monitor from :meth:`state`; it continues with exactly the same results.

        Raises:
            StorageError: if the arguments are not the state of a monitor.
        """
        try:
            seen, figures = tensors["seen"], tensors["figures"].tolist()
            number, alarm_at = header["count"], header["alarm_at"]
            monitor = cls(seen.numpy(), **header["options"])
            valid = all(
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
        if not valid:
            raise StorageError("this is not the state of a monitor that pushforward wrote.")
        monitor.count, monitor.alarm_at = number, alarm_at
        monitor._looked_at = -1 if number else 0
        monitor.log_evidence, monitor.highest, *monitor.martingale.state = figures
        return monitor

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the monitor to one safetensors file, without pickle."""
        header, tensors = self.state()
        write(path, {"kind": "monitor", **header}, tensors)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, public_key: Any = None) -> Monitor:
        """Load a saved monitor; loading an untrusted file is safe.

        Args:
            path: the file.
            public_key: file of the key with which the file must be signed, see :func:`~pushforward.io.sign`; None accepts any.

        Raises:
            SignatureError: if a key is given, and the file is not signed with it or was changed since.
            StorageError: if the file is damaged, does not contain a monitor, or has a newer format.
        """
        return cls.from_state(*read(path, kind="monitor", public_key=public_key))
