"""
The promise, kept a thousand times
==================================

A guard promises at most 5 % false alarms *on average over calibration sets*. Here that is measured: 1,000 sets of 99 calibration rows,
and the rate that each realizes on new rows. Theory gives the whole distribution of these rates, and the "pac" promise reads it.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import beta

import pushforward as pf
from pushforward.detection import ConformalCalibrator

rng = np.random.default_rng(0)
alpha, n = 0.05, 99

# %%
# The score is any function. Its distribution is known here, so the rate of each calibration set is exact.
marginal, pac = [], []
for _ in range(1000):
    calibrator = ConformalCalibrator(rng.exponential(size=n))
    marginal.append(np.exp(-calibrator.score_threshold(alpha)))
    calibrator = ConformalCalibrator(rng.exponential(size=n))
    pac.append(np.exp(-calibrator.score_threshold(alpha, "pac", 0.05)))
print(
    f"marginal: mean rate {np.mean(marginal):.4f}; above {alpha:g} in {np.mean(np.array(marginal) > alpha):.1%} of the sets"
)
print(f"pac:      mean rate {np.mean(pac):.4f}; above {alpha:g} in {np.mean(np.array(pac) > alpha):.1%} of the sets")

# %%
# Left, the rates beside theory. Right, one guard, by its p-values of 500 new rows: inside the band, which is wide because 99 rows are few.
guard = pf.Guard(alpha=alpha, calibration=n, effort="fast", random_state=0).fit(rng.normal(size=(1000, 3)))

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
bins = np.linspace(0, 0.15, 46)
left.hist(marginal, bins, density=True, color="#0072B2", alpha=0.6, label='"marginal"')
left.hist(pac, bins, density=True, color="#D55E00", alpha=0.6, label='"pac"')
grid = np.linspace(1e-4, 0.15, 300)
left.plot(grid, beta(5, 95).pdf(grid), color="black", label="theory: Beta(5, 95)")
left.axvline(alpha, color="black", linestyle=":", label="promise")
left.set(xlabel="rate of false alarms of one guard", ylabel="density", title="1,000 calibration sets of 99 rows")
left.legend(frameon=False)
pf.plot.p_values(guard.p_value(rng.normal(size=(500, 3))), ax=right, calibration=guard.calibrator_.n)
right.set_title("p-values of 500 new rows")
plt.show()
