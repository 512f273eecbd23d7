"""
Rows in the order of time
=========================

Readings of a plant resemble those an hour before. Calibration rows that are chosen at random have close neighbors among the training rows,
which tomorrow's rows will not have, so the guard promises too much. ``time=`` calibrates on the latest rows.
"""

import matplotlib.pyplot as plt
import numpy as np

import pushforward as pf

rng = np.random.default_rng(0)


def plant(n, memory=200):
    """Four sensors that wander slowly about their means, as autoregressive processes of the first order, and noise."""
    x = np.zeros((n, 4))
    for t in range(1, n):
        x[t] = (1 - 1 / memory) * x[t - 1] + np.sqrt(2 / memory) * rng.normal(size=4)
    return x + 0.1 * rng.normal(size=x.shape)


# %%
# Eight plants. The two guards of each differ in their calibration rows alone. The promise is 5 % of the rows.
rates = {"random rows": [], "latest rows": []}
for _ in range(8):
    rows = plant(8500)
    train, later = rows[:6000], rows[6000:]
    for name, time in (("random rows", None), ("latest rows", np.arange(6000))):
        guard = pf.Guard(alpha=0.05, effort="fast", random_state=0).fit(train, time=time)
        alarms = guard.predict(later) == -1
        rates[name].append(alarms.mean())
print({name: np.round(values, 3).tolist() for name, values in rates.items()})

# %%
# The latest rows are the better choice. They cannot make the promise exact: 600 rows that depend on each other are only a few
# independent ones, so the rate still varies from plant to plant. ``guard.calibration_`` says for which rows a promise is.
print(guard.calibration_)
figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4), layout="constrained", width_ratios=(3, 2))
left.plot(np.arange(6000), train[:, 0], ".", markersize=1.5, color="#999999", label="training")
left.plot(np.arange(6000, 8500), later[:, 0], ".", markersize=1.5, color="black", label="later, no alarm")
left.plot(6000 + np.flatnonzero(alarms), later[alarms, 0], ".", markersize=3, color="#D55E00", label="later, alarm")
left.set(xlabel="time", ylabel="one of four sensors", title="the last plant, calibrated on the latest rows")
left.legend(frameon=False, loc="lower left", markerscale=4)
for name, color in (("random rows", "#D55E00"), ("latest rows", "#0072B2")):
    right.plot(
        np.arange(1, 9), rates[name], "o", color=color, label=f"calibrated on {name}: mean {np.mean(rates[name]):.0%}"
    )
right.axhline(0.05, color="black", linestyle="--", linewidth=0.8)
right.set(xlabel="plant", ylabel="alarms of later rows", ylim=(-0.02, 1.15))
right.legend(frameon=False, loc="upper left")
plt.show()
