"""A guard of a table with every kind of column."""

from __future__ import annotations

import pytest
from mixed_tables import mixed_table

import pushforward as pf


@pytest.fixture(scope="session")
def mixed_guard() -> pf.Guard:
    return pf.Guard(0.1, effort="fast", random_state=0).fit(mixed_table(240, seed=0))
