"""`guard_card`: the model card of a guard, or of a network's guard from its file alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pushforward.detection.custom_score import CustomScore
from pushforward.estimators.guard_facts import (
    guard_facts,
    infinite_scores,
    network_promise,
    promise_sentence,
    trimmed_scores,
)
from pushforward.report.card import model_card
from pushforward.report.text import figure

if TYPE_CHECKING:
    from pushforward.estimators.guard import Guard

__all__ = ["guard_card", "network_card"]

_COMMON: tuple[str, ...] = (
    "The promise is for inputs like those that calibrated the guard. After a change of normal inputs there are more false alarms, which "
    "`pushforward report` shows: then calibrate the guard on new ones.",
    "The rate of this guard differs from the promised one by chance; the interval above says by how much.",
    "How many anomalies are detected is not promised. Anomalies that agree with the training data in everything that the score reads are "
    "not detected.",
    "Calibration and training data must be free of anomalies, or nearly: those in the calibration data make the guard miss similar ones.",
)


def guard_card(
    guard: Guard, file: str = "", more: Mapping[str, str] | None = None, reports: Sequence[Mapping[str, Any]] = ()
) -> str:
    """The model card of a guard of tables or images.

    Args:
        guard: fitted.
        file: name of its file.
        more: further facts by name, such as the digest of the file.
        reports: contents of reports on this guard, whose figures are shown.

    Raises:
        InputError: for a report that is not one, or is of another guard.
    """
    n, nouns = guard.calibrator_.n, "images" if guard.reads_images else "rows"
    promised = promise_sentence(
        guard.alpha, guard.guarantee, guard.delta, n, guard.level_, nouns, infinite_scores(guard), trimmed_scores(guard)
    )[1]
    measured = _calibration_figures(guard.calibrator_.scores)
    limits: list[str] = list(_COMMON)
    if guard.reads_images:
        limits.append("It reads images of one size, as integers; other sizes are refused.")
    elif hasattr(guard.score_, "pool"):
        pool = guard.score_.pool  # pyright: ignore[reportAttributeAccessIssue]
        best = next(pool.statistics())
        measured.append(("Statistic with the largest weight", f"{best[0]}: weight {figure(best[1], 3)}"))
        measured.append(
            ("AUROC of this statistic on rows made of two training rows, which stand for anomalies", figure(best[2], 3))
        )
        limits.append(
            f"**The file contains {len(pool):,} training rows**, because distances need them: whoever has the file can read them."
        )
        limits.append(
            "A category that no training row had, and a missing cell in a column without missing cells, raise the score by a fixed amount."
        )
        limits.append("Each row is scored by itself: order, time and repetition are not seen.")
    elif isinstance(guard.score_, CustomScore):
        limits.append(
            "The score was given by whoever fitted the guard: what it sees and what it misses is for them to say."
        )
    else:
        limits.append(
            "The guard is smoothed: its alarms can be certified against small changes, at the price of a coarser score."
        )
    if guard.level_ == 0:
        limits.insert(0, f"**It raises no alarm**{promised.removeprefix('The guard raises no alarm')}")
    facts = guard_facts(guard, file, more or {})
    return model_card(facts, promised, str(guard.calibration_), guard.alpha, measured, limits, reports)


def network_card(
    header: Mapping[str, Any], scores: np.ndarray, file: str = "", more: Mapping[str, str] | None = None,
    reports: Sequence[Mapping[str, Any]] = (),
) -> str:  # fmt: skip
    """The model card of a network's guard, from the header of its file and its calibration scores; the network is not needed.

    Args:
        header: of the file.
        scores: the calibration scores.
        file: name of the file.
        more: further facts by name.
        reports: contents of reports on this guard.

    Raises:
        InputError: for a report that is not one, or is of another guard.
    """
    options, n = header["options"], len(scores)
    promised = network_promise(options, n, header["promised"])[1]
    trained = header.get("training_rows")
    facts = {
        "Guard": f"{file} (of a network)",
        **(more or {}),
        "Digest of the network's weights": f"sha256 {header['digest']}" if header["digest"] else "unknown",
        "Training data": "unknown" if trained is None else f"{trained:,} inputs fitted the score",
        "Calibration data": f"{n:,} held-out inputs",
        "Task": f"{header['classes']} classes" if header["classes"] > 1 else "no classes",
        "Score": ", ".join(part["class"] for part in header["score"]),
        "Inner layers": ", ".join(options["layers"]) or "none",
        "Fitted with": ", ".join(f"{name} {version}" for name, version in header["versions"].items()),
    }
    guard = {
        "kind": "network",
        "file": file,
        "versions": header["versions"],
        "facts": list(facts.items()),
        "columns": [],
    }
    limits = [
        *_COMMON,
        "It belongs to one network: a retrained or fine-tuned copy is refused, because its calibration would not be valid.",
        "It reads what the network computes. What the network has learned to ignore, the guard hardly sees.",
    ]
    is_for = f"inputs like the held-out ones ({n:,} of them calibrated the alarm)"
    return model_card(guard, promised, is_for, options["alpha"], _calibration_figures(scores), limits, reports)


def _calibration_figures(scores: np.ndarray) -> list[tuple[str, str]]:
    quantiles = (
        np.quantile(scores[np.isfinite(scores)], (0.5, 0.9, 0.99)) if np.isfinite(scores).any() else [np.nan] * 3
    )
    shown = ", ".join(figure(float(q)) for q in quantiles)
    return [("Anomaly scores of the calibration inputs: median, 90% and 99% quantile", shown)]
