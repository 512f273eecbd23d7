"""What the commands say of a guard and of this installation."""

from __future__ import annotations

from typing import Any

__all__ = ["facts_of", "summary", "system_facts"]


def system_facts() -> dict[str, Any]:
    """Versions, and the native kernels in use."""
    import platform

    import torch

    import pushforward
    from pushforward.kernels import description

    kernels = description()
    levels = f"{', '.join(kernels['levels'])} ({'with' if kernels['openmp'] else 'without'} OpenMP)"
    return {
        "pushforward": pushforward.__version__,
        "torch": torch.__version__,
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "kernels in use": f"native, {kernels['level']}" if kernels["level"] else f"plain: {kernels['reason']}",
        "kernels installed": levels if kernels["installed"] else "none",
        "kernels asked for": kernels["mode"],
        "threads": kernels["threads"],
    }


def summary(guard: Any) -> dict[str, Any]:
    """The facts about a fitted guard that a user needs."""
    from pushforward.report.text import confidence

    calibrated = len(guard.calibrator_.scores)
    promise = f"at most {100 * guard.alpha:.3g}%"
    promise += " on average" if guard.guarantee == "marginal" else f", with probability {confidence(guard.delta)}"
    if guard.level_ == 0:
        why = (
            "too many calibration rows have an infinite score"
            if _infinite(guard)
            else "that needs more calibration rows"
        )
        promise += f" ({guard.guarantee}); no row raises an alarm, because {why}"
    else:
        low, high = _rates(guard)
        promise += f" ({guard.guarantee}); 95% of such guards have a rate of {low:.2%} to {high:.2%}"
    alarms = {"calibration rows": calibrated, "false alarms": promise, "promise is for": str(guard.calibration_)}
    if guard.reads_images:
        return {"images": " x ".join(map(str, guard.score_.shape)), **alarms, "score": repr(guard.score_)}
    if not hasattr(guard.score_, "pool"):
        return {"columns": guard.n_features_in_, **alarms, "score": repr(guard.score_)}
    stored = len(guard.score_.pool)
    stored = f"the file contains {stored} training rows" if stored else "no training rows in the file"
    return {
        "columns": guard.n_features_in_,
        "training rows": guard.table_features_.rows,
        **_columns_read(guard),
        **alarms,
        "score": f"{guard.effort}, {len(guard.score_.pool.scales)} statistics, {stored}",
        "density": f"{guard.model} x {guard.n_estimators}, {guard.density_.kind.value} on {guard.density_.measure}"
        if guard.score_.has_density
        else "none (fit with --density to have log_prob and samples)",
    }


def _rates(guard: Any) -> tuple[float, float]:
    """The interval in which 95 % of such guards have their rate of false alarms."""
    from pushforward.detection.conformal.guarantees import false_alarm_distribution
    from pushforward.estimators.guard_facts import trimmed_scores

    n, trimmed = len(guard.calibrator_.scores), trimmed_scores(guard)
    return false_alarm_distribution(n, guard.alpha, guard.guarantee, guard.delta, trimmed).interval(0.95)


def _infinite(guard: Any) -> bool:
    """Whether some calibration score is +inf, where without it there would be alarms."""
    from pushforward.detection.conformal.guarantees import rows_needed
    from pushforward.estimators.guard_facts import infinite_scores

    enough = guard.calibrator_.n >= rows_needed(guard.alpha, guard.guarantee, guard.delta)
    return enough and infinite_scores(guard) > 0


def _columns_read(guard: Any) -> dict[str, str]:
    """Which columns are set aside, constant, or read in more than one way."""
    features, names = guard.table_features_, guard.schema_.names
    found: dict[str, str] = {}
    if guard.ignored_:
        found["set aside"] = ", ".join(guard.ignored_)
    if features.constants:
        found["constant"] = ", ".join(names[i] for i, _ in features.constants)
    periods: dict[str, list[str]] = {}
    for k, period in features.calendar:
        periods.setdefault(names[features.kept[k]], []).append(period)
    if periods:
        found["read from instants"] = "; ".join(f"{name}: instant, {', '.join(p)}" for name, p in periods.items())
    if features.indicators:
        found["may be missing"] = ", ".join(names[features.kept[k]] for k in features.indicators)
    if guard.strict and guard.level_ > 0:
        found["strict"] = "every cell that no training row has raises an alarm"
    return found


def facts_of(guard: Any) -> dict[str, Any]:
    """The facts of :func:`summary` as plain JSON types, for programs."""

    calibrated = len(guard.calibrator_.scores)
    interval = None  # no row raises an alarm
    if guard.level_ > 0:
        interval = list(_rates(guard))
    features = None if guard.reads_images or not hasattr(guard.score_, "pool") else guard.table_features_
    return {
        "reads": guard.score_.reads,
        "columns": None if guard.reads_images else list(guard.schema_.names),
        "ignored_columns": list(guard.ignored_),
        "calendar": []
        if features is None
        else [[guard.schema_.names[features.kept[k]], p] for k, p in features.calendar],
        "training_rows": None if features is None else features.rows,
        "calibration_rows": calibrated,
        "recalibrations": guard.calibration_.times,
        "promise_is_for": str(guard.calibration_),
        "alpha": guard.alpha,
        "guarantee": guard.guarantee,
        "level": guard.level_,
        "false_alarm_interval": interval,
    }
