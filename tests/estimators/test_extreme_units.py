"""The warning about columns whose numbers leave the range in which scores tell them apart."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import pushforward as pf
from pushforward.errors import PushforwardWarning


def table(factor: float) -> pd.DataFrame:
    rows = np.random.default_rng(0).normal(size=(200, 3))
    frame = pd.DataFrame({"a": rows[:, 0], "b": rows[:, 1] * factor, "when": pd.Timestamp("2026-01-01"), "zero": 0.0})
    frame["when"] += pd.to_timedelta(np.arange(200) % 24, unit="h")
    return frame


@pytest.mark.parametrize(
    ("factor", "words"),
    [(1e150, r"beyond 1e\+100 .* in a larger unit"), (1e-200, "below 1e-100 .* in a smaller unit")],
)
def test_extreme_units_are_named(factor, words) -> None:
    with pytest.warns(PushforwardWarning, match=f"column 'b' has numbers of a size up to .*{words}"):
        pf.Guard(0.1, effort="fast", random_state=0).fit(table(factor))


@pytest.mark.parametrize("factor", [1e-90, 1.0, 1e90])
def test_anomalies_are_found_in_all_other_units(factor) -> None:
    frame = table(factor)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        guard = pf.Guard(0.1, effort="fast", random_state=0).fit(frame)
    odd = frame.assign(b=20 * factor)
    assert guard.assess(odd)["alarm"].all()


def test_a_range_that_overflows_gives_no_other_warning() -> None:
    frame = table(1.0).assign(b=1.7e308 * np.random.default_rng(1).uniform(-1, 1, 200))
    with pytest.warns(PushforwardWarning, match="column 'b'"):
        guard = pf.Guard(0.1, effort="fast", random_state=0).fit(frame)
    assert np.isfinite(guard.anomaly_score(frame)).all()
    assert len(guard.explain(frame.iloc[:2])) == 2
