"""A table with every kind of column, and rows with cells that it does not have."""

from __future__ import annotations

import numpy as np
import pandas as pd


def mixed_table(rows: int, seed: int) -> pd.DataFrame:
    """Numbers, integers, flags, texts, instants and missing cells that depend on a hidden group."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 3, rows)
    table = pd.DataFrame(
        {
            "income": np.exp(rng.normal(10, 0.5, rows) + 0.3 * group),
            "visits": rng.poisson(3 + group, rows).astype(float),
            "member": rng.random(rows) < 0.2 + 0.3 * group,
            "city": np.array(["Oslo", "Bern", "Rome"])[group],
            "when": pd.Timestamp("2025-01-01") + pd.to_timedelta(rng.integers(0, 86400 * 300, rows), unit="s"),
            "alarm": rng.normal(size=rows),
            "grade": rng.choice(["1", "2", "3.5"], rows),
            "unit": 7.0,
        }
    )
    table.loc[rng.random(rows) < 0.1, "visits"] = np.nan
    table.loc[rng.random(rows) < 0.05, "city"] = None
    return table


def strange_rows() -> pd.DataFrame:
    """Rows with cells that the training rows did not have, beside usual ones."""
    table = mixed_table(16, seed=9)
    table.loc[0, "city"] = "Paris"  # unseen
    table.loc[1, "income"] = np.inf
    table.loc[2, "income"] = -np.inf
    table.loc[3, "income"] = 1e300
    table.loc[4, "income"] = np.nan  # no cell of this column was missing
    table.loc[5, "unit"] = 8.0  # a column that was constant
    table.loc[6, "unit"] = np.nan
    table.loc[7, "grade"] = "1.0"  # another spelling of "1"
    table.loc[8, "grade"] = "007"
    table.loc[9, "visits"] = 1e6
    table.loc[10, "when"] = pd.Timestamp("1950-01-01")
    table.loc[11:14, "income"] = [0.5, 1e-9, 0.0, -3.0]  # beyond the short end of a positive column
    table.loc[15, "unit"] = np.inf
    return table
