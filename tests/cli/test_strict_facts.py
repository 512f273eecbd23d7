"""Where infinite calibration scores leave no alarm, report and summary give this reason, and not too few rows."""

import numpy as np
import pandas as pd
import pytest

import pushforward as pf
from pushforward.cli.facts import summary
from pushforward.errors import PushforwardWarning
from pushforward.estimators.cards import guard_card


def test_a_strict_guard_without_alarms_says_why() -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"x": rng.normal(size=600), "shop": [f"M{k}" for k in np.minimum(rng.zipf(1.4, 600), 9999)]})
    with (
        pytest.warns(PushforwardWarning, match=r"19 of 100 calibration scores are \+inf"),
        pytest.warns(PushforwardWarning, match="'shop' has 62 values that one of 600 rows has"),
    ):
        guard = pf.Guard(alpha=0.05, effort="fast", random_state=0, strict=True).fit(table)
    found = summary(guard)
    assert "too many calibration rows have an infinite score" in found["false alarms"]
    assert "strict" not in found
    card = guard_card(guard)
    assert "**It raises no alarm**, because 19 of 100 calibration rows have an infinite score" in card
    assert "too few" not in card.partition("## Limits")[2]
    text = str(guard.report(table[:100]))
    assert "19 of 100 calibration rows have an infinite score, which is too many for a rate of 5.00%" in text
    assert "too few" not in text.partition("\n")[0] + text.partition("promise")[2].partition("\n")[0]


def test_a_small_rate_is_not_written_as_none() -> None:
    with pytest.warns(PushforwardWarning, match="predict raises no alarm"):
        guard = pf.Guard(alpha=1e-5, effort="fast", random_state=0).fit(np.random.default_rng(0).normal(size=(200, 2)))
    assert summary(guard)["false alarms"].startswith("at most 0.001% on average")


def test_a_probability_near_one_is_not_written_as_certain() -> None:
    x = np.random.default_rng(0).normal(size=(400, 2))
    guard = pf.Guard(alpha=0.2, guarantee="pac", delta=1e-3, effort="fast", random_state=0).fit(x)
    assert summary(guard)["false alarms"].startswith("at most 20%, with probability 99.9% (pac)")
