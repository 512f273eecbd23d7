"""Facts about a fitted guard, in words and numbers, for reports and model cards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pushforward.detection import false_alarm_distribution
from pushforward.detection.conformal.guarantees import rows_needed
from pushforward.detection.table_score import TableScore
from pushforward.io.file_format import current_versions
from pushforward.report.reasons import usual
from pushforward.report.text import confidence, decimals, figure, percent, promised_rate

if TYPE_CHECKING:
    from pushforward.estimators.guard import Guard
    from pushforward.estimators.network_guard import NetworkGuard

__all__ = ["guard_facts", "infinite_scores", "network_facts", "network_promise", "promise_sentence"]


def promise_sentence(
    alpha: float,
    guarantee: str,
    delta: float,
    calibration: int,
    level: float,
    nouns: str = "rows",
    infinite: int = 0,
    trimmed: int = 0,
) -> tuple[bool, str]:
    """Whether a guard promises a rate of false alarms, and the sentence for it.

    Args:
        alpha: the rate.
        guarantee: "marginal" or "pac".
        delta: of "pac".
        calibration: number of calibration rows.
        level: p-value at or below which there is an alarm; 0 for none.
        nouns: what a row is called.
        infinite: number of calibration rows whose score is +inf.
        trimmed: number of larger calibration scores that were left out as those of anomalies.
    """
    if level == 0:
        why = f"{calibration:,} calibration {nouns} are too few for a rate of {promised_rate(alpha)}"
        if infinite and calibration >= rows_needed(alpha, guarantee, delta):  # pyright: ignore[reportArgumentType]
            why = f"{infinite:,} of {calibration:,} calibration {nouns} have an infinite score, which is too many for a rate of {promised_rate(alpha)}"
        return False, f"The guard raises no alarm, because {why}."
    low, high = false_alarm_distribution(calibration, alpha, guarantee, delta, trimmed).interval(0.95)  # pyright: ignore[reportArgumentType]
    digits = decimals(alpha)
    scores = (
        f"the {trimmed:,} calibration scores that were left out are"
        if trimmed > 1
        else "the calibration score that was left out is"
    )
    condition = f", if {scores} of anomalies" if trimmed else ""
    if guarantee == "pac":
        what = f"With a probability of {confidence(delta)} over the calibration {nouns}, this guard raises a false alarm for at most {promised_rate(alpha)} of normal {nouns}{condition}."
    else:
        what = f"On average over calibration sets, at most {promised_rate(alpha)} of normal {nouns} raise a false alarm{condition}."
    return (
        True,
        f"{what} With {calibration:,} calibration {nouns}, 95% of such guards have a rate of {percent(low, digits)} to {percent(high, digits)}.",
    )


def trimmed_scores(guard: Any) -> int:
    """Number of calibration scores that ``max_contamination`` left out."""
    return getattr(getattr(guard, "calibration_", None), "trimmed", 0)


def network_promise(options: Mapping[str, Any], calibration: int, promised: bool) -> tuple[bool, str]:
    """Whether the guard of a network promises a rate, and the sentence for it.

    Args:
        options: its ``alpha``, ``guarantee``, ``delta`` and ``per_class``.
        calibration: number of calibration rows.
        promised: whether these were not training rows.
    """
    if not promised:
        return False, "No rate is promised, because the guard was calibrated on rows that the network was trained on."
    if options["per_class"]:
        rate, kind = promised_rate(options["alpha"]), options["guarantee"]
        return (
            True,
            f"For each predicted class by itself, at most {rate} of normal inputs raise a false alarm ({kind}).",
        )
    return promise_sentence(options["alpha"], options["guarantee"], options["delta"], calibration, 1.0, "inputs")


def infinite_scores(guard: Guard) -> int:
    """Number of calibration scores that are +inf, as those of rows that ``strict=True`` does not allow."""
    return int(np.isposinf(guard.calibrator_.scores).sum())


def guard_facts(guard: Guard, file: str, more: Mapping[str, str]) -> dict[str, Any]:
    """What was trained on what, as plain JSON types.

    Args:
        guard: fitted.
        file: name of its file.
        more: further facts by name, such as the digest of the file.
    """
    training, n = guard.training_, guard.calibrator_.n
    nouns = "images" if guard.reads_images else "rows" if guard.embed is None else "inputs"
    versions = current_versions()
    facts = {"Guard": f"{file} ({nouns_of(guard)})" if file else nouns_of(guard), **more}
    if training is not None:
        divided = ""
        if guard.calibration_.times == 0 and guard.calibration_.by_group:
            divided = f", of which {n:,} calibrated the alarm, of {guard.calibration_.chosen} that fitted nothing"
        elif guard.calibration_.times == 0:
            fitted = training.rows - n - guard.calibration_.trimmed
            divided = f", of which {fitted:,} fitted the score and {n:,} calibrated the alarm"
        facts["Training data"] = f"{training.rows:,} {nouns}{divided}"
        facts["Digest of the training data"] = f"sha256 {training.digest}"
        facts["Fitted with"] = ", ".join(f"{name} {version}" for name, version in training.versions.items())
    if guard.calibration_.times:
        facts["Calibrated again"] = f"{guard.calibration_.times} time(s), last on {n:,} {nouns}" + (
            f": {guard.calibration_.note}" if guard.calibration_.note else ""
        )
    if guard.embed is not None:
        facts["Network"] = repr(guard.embedder_)
        if guard.digest_:
            facts["Digest of the network"] = f"sha256 {guard.digest_}"
    facts["Score"] = _score_text(guard)
    facts["Alarm"] = (
        f"p-value of at most {figure(guard.level_)}, which is a score of at least {figure(-guard.offset_)}"
        if guard.level_
        else "none: too few calibration rows, or too many with an infinite score"
    )
    columns = []
    if not guard.reads_images:
        summaries = {} if training is None else {c.column.name: c for c in training.columns}
        for column in guard.schema_.columns:
            summary = summaries.get(column.name)
            share = None if summary is None else percent(summary.missing / summary.rows)
            columns.append({
                "name": column.name,
                "kind": _kind(column),
                "usual": "" if summary is None else usual(summary),
                "missing": ("may be missing" if column.missing else "never") if share is None else share,
            })  # fmt: skip
    return {
        "kind": "images" if guard.reads_images else "table" if guard.embed is None else "network",
        "images": guard.reads_images,
        "file": file,
        "versions": versions,
        "calibration_rows": n,
        "training_rows": None if training is None else training.rows,
        "training_digest": None if training is None else training.digest,
        "level": guard.level_,
        "facts": [[name, str(value)] for name, value in facts.items()],
        "columns": columns,
    }


def network_facts(guard: NetworkGuard, file: str, more: Mapping[str, str]) -> dict[str, Any]:
    """What was trained on what, for the guard of a network, as plain JSON types."""
    n = sum(calibrator.n for calibrator in guard.calibrators_.values())
    size = sum(p.numel() for p in guard.net.parameters()) if hasattr(guard.net, "parameters") else None  # pyright: ignore
    facts = {"Guard": f"{file} (of a network)" if file else "of a network", **more}
    facts["Network"] = type(guard.net).__name__ + ("" if size is None else f", {size:,} parameters")
    if guard.digest_:
        facts["Digest of the network's weights"] = f"sha256 {guard.digest_}"
    if guard.training_rows_ is not None:
        facts["Training data"] = f"{guard.training_rows_:,} inputs fitted the score"
    facts["Calibration data"] = f"{n:,} held-out inputs"
    facts["Task"] = f"{guard.classes_} classes" if guard.classes_ > 1 else "no classes"
    facts["Score"] = ", ".join(guard.score_.names)
    facts["Inner layers"] = ", ".join(guard.reader_.layers) or "none"
    return {
        "kind": "network",
        "images": False,
        "file": file,
        "versions": current_versions(),
        "calibration_rows": n,
        "training_rows": guard.training_rows_,
        "training_digest": None,
        "level": max(guard.levels_.values()),
        "facts": [[name, str(value)] for name, value in facts.items()],
        "columns": [],
    }


def nouns_of(guard: Guard) -> str:
    """What a guard reads, in words."""
    if guard.reads_images:
        channels, height, width = guard.score_.shape  # pyright: ignore[reportAttributeAccessIssue]
        return f"of {'gray' if channels == 1 else f'{channels}-channel'} images, {width} x {height}"
    if guard.embed is not None:
        return f"of the {guard.n_features_in_:,} features of a network"
    return f"of a table with {guard.n_features_in_:,} column{'s' if guard.n_features_in_ != 1 else ''}"


def _kind(column: Any) -> str:
    what = column.time.split("_")[0] or column.kind
    return f"{what}, {len(column.categories)} values" if column.categories else what


def _score_text(guard: Guard) -> str:
    if not isinstance(guard.score_, TableScore):
        return repr(guard.score_)
    pool = guard.score_.pool
    density = ", and flows for a density" if guard.score_.has_density else ""
    return f"{len(pool.scales)} statistics with weights, effort {guard.effort}, {len(pool):,} training rows stored{density}"
