"""
A guard of loan applications, with reasons
==========================================

A table with numbers, categories and missing cells. The guard is fitted on applications that were in order; then three arrive that
are not. Each alarm comes with the columns that caused it, the values that would have been usual, and a sentence for a clerk.
"""

import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import pushforward as pf


def applications(n, seed):
    rng = np.random.default_rng(seed)
    income = np.exp(rng.normal(8, 0.4, n))
    return pd.DataFrame({
        "income, EUR": income.round(),
        "loan, EUR": (income * rng.uniform(2, 8, n)).round(-2),
        "rate, %": (2 + 3 * rng.beta(2, 4, n)).round(2),
        "age": rng.integers(20, 70, n),
        "job": rng.choice(["employed", "self-employed", "retired"], n, p=[0.7, 0.2, 0.1]),
        "years in job": np.where(rng.random(n) < 0.15, np.nan, rng.exponential(6, n).round()),
    })  # fmt: skip


guard = pf.Guard(alpha=0.01, random_state=0).fit(applications(2000, seed=0))

# %%
# A loan that is too large for the income, an age of 130, and a job that no application had, which also gives a warning.
new = applications(200, seed=1)
new.loc[3, ["income, EUR", "loan, EUR"]] = [1400.0, 38000.0]
new.loc[7, "age"] = 130
new.loc[11, "job"] = "astronaut"
with warnings.catch_warnings(action="ignore", category=pf.errors.SchemaWarning):
    result, explanation = guard.assess(new), guard.explain(new.loc[[3, 7, 11]])
print(f"alarms in 200 rows: {np.flatnonzero(result['alarm']).tolist()}")
print(explanation)

# %%
# The bars are how far each cell is beyond what is usual for its column; orange is unusual.
figure, axes = plt.subplots(3, 1, figsize=(9, 7.5), layout="constrained")
for k, (ax, row) in enumerate(zip(axes, (3, 7, 11), strict=True)):
    pf.plot.explanation(explanation, k, k=5, ax=ax)
    ax.set_title(f"row {row}: p-value {result['p_value'][row]:.4f}", loc="left", fontsize=10)
plt.show()
