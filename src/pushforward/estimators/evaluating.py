"""`evaluate_guard`: a guard on rows of which a user knows the anomalies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pushforward.data import as_table, is_frame
from pushforward.data.arrow import to_numpy
from pushforward.data.digest import content_digest
from pushforward.data.schema import present_columns
from pushforward.data.tables import from_tensor
from pushforward.errors import InputError
from pushforward.estimators.guard_facts import promise_sentence, trimmed_scores
from pushforward.estimators.validation import require_fitted
from pushforward.report.evaluation import Evaluation, evaluate_scores

if TYPE_CHECKING:
    from pushforward.estimators.conformal_detector import ConformalDetector
    from pushforward.estimators.network_guard import NetworkGuard

__all__ = ["anomalous_rows", "evaluate_answers", "evaluate_guard", "evaluate_network"]


def evaluate_guard(guard: ConformalDetector, X: Any, y: Any, anomaly: Any = None) -> Evaluation:
    """What the scores and alarms of a guard are on rows with labels.

    Args:
        guard: fitted.
        X: rows, as for ``guard.predict``.
        y: one label for each row, or the name of a column of X.
        anomaly: the label of anomalies, see :func:`anomalous_rows`.

    Raises:
        InputError: for rows that do not fit the guard, or labels that do not fit the rows.
    """
    require_fitted(guard)
    if isinstance(y, str):
        if not is_frame(X):
            raise InputError(f"y={y!r} names a column, but an array has no names: give one label for each row.")
        if y not in (table := as_table(X, index=True)).column_names:
            raise InputError(
                f"y={y!r} names no column of the table: give one of {present_columns(y, table.column_names)}, or one label for each row."
            )
        X, y = table.drop_columns([y]), table.column(y)
    scores = guard.anomaly_score(X)
    odd, known = anomalous_rows(y, anomaly)
    if len(odd) != len(scores):
        raise InputError(f"y must have one label for each of the {len(scores)} rows; got {len(odd)}.")
    alarm = guard._decide(-scores) < 0
    return evaluate_answers(guard, scores, alarm, odd, known, _seen(guard, X, len(scores)))


def evaluate_answers(
    guard: Any, scores: np.ndarray, alarm: np.ndarray, odd: np.ndarray, known: np.ndarray, notes: tuple[str, ...] = ()
) -> Evaluation:
    """The same from what the guard said of the rows.

    Args:
        guard: a guard of any kind.
        scores: anomaly scores, ``(n,)``.
        alarm: boolean, ``(n,)``.
        odd: which rows are anomalies.
        known: which rows have a label.
        notes: on the rows.
    """
    calibrator = guard.calibrators_.get(None) if hasattr(guard, "calibrators_") else guard.calibrator_
    calibration = None if calibrator is None else getattr(calibrator, "n", None)
    if not getattr(guard, "promised_", True):
        calibration = None
        notes = (
            *notes,
            "No rate is promised, because the guard was calibrated on rows that the network was trained on.",
        )
    elif getattr(guard, "level_", 1.0) == 0:
        infinite = int(np.isposinf(calibrator.scores).sum()) if calibrator is not None else 0
        why = promise_sentence(guard.alpha, guard.guarantee, guard.delta, calibration or 0, 0.0, infinite=infinite)[1]
        notes = (*notes, why)
        calibration = None
    return evaluate_scores(
        scores[known], alarm[known], odd[known], alpha=guard.alpha, guarantee=guard.guarantee, delta=guard.delta,
        calibration=calibration, trimmed=trimmed_scores(guard), left_out=int((~known).sum()), notes=notes,
    )  # fmt: skip


def evaluate_network(guard: NetworkGuard, data: Any, y: Any = None, anomaly: Any = None) -> Evaluation:
    """What the scores and alarms of the guard of a network are on inputs with labels.

    Args:
        guard: fitted.
        data: inputs, in any form that ``guard.report`` takes.
        y: one label for each input, that says which are anomalies; None where the batches of ``data`` have these labels.
        anomaly: the label of anomalies, see :func:`anomalous_rows`.

    Raises:
        InputError: for inputs that do not fit the network, or labels that do not fit them.
    """
    scores, alarm, found = [], [], []
    for inputs, labels in guard._batches(data, "the data"):
        out = guard(inputs)  # what it knows of the inputs is not kept
        scores.append(out.score.numpy())
        alarm.append(out.alarm.numpy())
        found.append(None if labels is None else labels.detach().cpu().numpy())
    scores, alarm = np.concatenate(scores), np.concatenate(alarm)
    if y is None:
        known_labels = [labels for labels in found if labels is not None]
        if len(known_labels) < len(found):
            raise InputError("y is missing: say for each input whether it is an anomaly.")
        y = np.concatenate(known_labels)
    odd, known = anomalous_rows(y, anomaly)
    if len(odd) != len(scores):
        raise InputError(f"y must have one label for each of the {len(scores)} inputs; got {len(odd)}.")
    return evaluate_answers(guard, scores, alarm, odd, known)


def anomalous_rows(y: Any, anomaly: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Which rows are anomalies by their labels, and which have a label at all; both boolean ``(n,)``.

    Args:
        y: labels of any type; None, NaN and empty text are no label.
        anomaly: the label of anomalies, as a value or as its text. None for True, for 1 among 0 and 1, and for -1 among -1 and 1
            (scikit-learn's sign).

    Raises:
        InputError: for labels of several dimensions, a label of anomalies that no row has, or labels that do not tell which are
            anomalies.

    Example:
        >>> odd, known = anomalous_rows(["ok", "broken", None], "broken")
        >>> odd.tolist(), known.tolist()
        ([False, True, False], [True, True, False])
    """
    if hasattr(y, "detach"):
        y = from_tensor(y)
    if hasattr(y, "to_numpy"):
        y = to_numpy(y) if hasattr(y, "null_count") and hasattr(y, "type") else y.to_numpy()
    labels = np.asarray(y)
    if labels.ndim != 1:
        raise InputError(f"y must have one label for each row; got shape {labels.shape}.")
    values = labels.astype(object)
    if anomaly is None:
        values[:] = [_plain(value) for value in values]
    known = np.array([_is_label(value) for value in values], dtype=bool)
    try:
        distinct = set(values[known].tolist())
    except TypeError:
        raise InputError(
            "y must have one label for each row: a number, a flag or a text, and not lists or other containers."
        ) from None
    if anomaly is not None and np.ndim(anomaly):
        raise InputError(f"anomaly must be one label; got {anomaly!r:.80}.")
    if anomaly is not None:
        chosen = {value for value in distinct if _same(value, anomaly)}
        if not chosen:
            few = ", ".join(sorted(map(repr, distinct))[:10])
            raise InputError(f"no row has the label {anomaly!r} of anomalies; the labels are {few}.")
    elif distinct and distinct <= {0, 1} and distinct != {1}:  # True == 1
        chosen = {1}
    elif distinct and all(isinstance(value, (bool, np.bool_)) for value in distinct):
        chosen = {True}
    elif distinct and distinct <= {-1, 1} and -1 in distinct:
        chosen = {-1}
    else:
        few = ", ".join(sorted(map(repr, distinct))[:10]) or "none"
        raise InputError(
            f"the labels ({few}) do not tell which rows are anomalies: say the label of anomalies (anomaly=, --anomaly)."
        )
    return np.array([k and value in chosen for k, value in zip(known, values, strict=True)], dtype=bool), known


def _is_label(value: Any) -> bool:
    """Whether a cell has a label: None, NaN, NaT, pandas.NA and empty text are none."""
    same = value == value
    return value is not None and isinstance(same, (bool, np.bool_)) and bool(same) and value != ""


def _plain(value: Any) -> Any:
    """The number or the flag that a text stands for, as in a column of text."""
    if not isinstance(value, str):
        return value
    text = value.strip().lower()
    if text in ("true", "false"):
        return text == "true"
    try:
        number = float(text)
    except ValueError:
        return value
    return int(number) if number in (-1, 0, 1) else value


def _same(value: Any, given: Any) -> bool:
    if value == given or str(value) == str(given):
        return True
    try:
        return float(value) == float(given)
    except (TypeError, ValueError):
        return False


def _seen(guard: Any, X: Any, count: int) -> tuple[str, ...]:
    """A note if these are the rows that fitted the guard."""
    training = getattr(guard, "training_", None)
    if training is None or count != training.rows or content_digest(guard._read(X)) != training.digest:
        return ()
    return (
        "These are the rows that fitted the guard, so the figures are too good: evaluate on rows that it has not seen.",
    )
