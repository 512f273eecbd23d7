"""
Missing cells
=============

A guard takes tables with holes as they are. Here a growing fraction of the cells of new rows is deleted, at random: as long as the training
table has missing cells in the same way, the promise holds, and the anomalies that are still visible are detected.
"""

import warnings

import matplotlib.pyplot as plt
import numpy as np

import pushforward as pf
from pushforward.detection import realized_interval

rng = np.random.default_rng(0)
mixing = rng.normal(size=(6, 6))


def rows(n, missing, shift=0.0):
    x = rng.normal(size=(n, 6)) @ mixing
    x[np.arange(n), rng.integers(0, 6, n)] += shift
    x[rng.random(x.shape) < missing] = np.nan
    return x


# %%
# One guard for each fraction, fitted on rows with that fraction of missing cells. An anomaly is one shifted cell.
fractions = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
false, found, bands = [], [], []
for missing in fractions:
    guard = pf.Guard(alpha=0.05, effort="fast", random_state=0).fit(rows(2000, missing))
    false.append(np.mean(guard.predict(rows(1500, missing)) == -1))
    found.append(np.mean(guard.predict(rows(1500, missing, shift=6.0)) == -1))
    bands.append(realized_interval(guard.calibrator_.n, 1500, 0.05))
    print(f"{missing:.0%} missing: {false[-1]:.1%} false alarms, {found[-1]:.0%} of the anomalies")

# %%
# A row with a missing cell where no training row has one is reported: that is new.
complete = pf.Guard(alpha=0.05, effort="fast", random_state=0).fit(rows(2000, 0.0))
hole = rows(1, 0.0)
hole[0, 2] = np.nan
with warnings.catch_warnings(action="ignore", category=pf.errors.SchemaWarning):
    print(complete.explain(hole).sentences()[0])

figure, ax = plt.subplots(figsize=(7, 4.2), layout="constrained")
ax.fill_between(fractions, *np.transpose(bands), color="#DDDDDD", label="95 % of such guards")
ax.plot(fractions, false, "o-", color="#0072B2", label="false alarms")
ax.plot(fractions, found, "s-", color="#D55E00", label="detected anomalies")
ax.axhline(0.05, color="black", linestyle="--", linewidth=0.8)
ax.set(xlabel="fraction of missing cells", ylabel="fraction of rows with an alarm", ylim=(0, 1))
ax.legend(frameon=False)
plt.show()
