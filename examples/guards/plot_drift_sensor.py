"""
Drift of a sensor stream
========================

A pump is watched by four sensors; after 1,500 readings a bearing begins to wear. A monitor bets against "the stream is as before"
and raises an alarm when its capital has grown a hundredfold, which happens to a normal stream with a probability of at most 1 %, ever.
"""

import matplotlib.pyplot as plt
import numpy as np

import pushforward as pf

rng = np.random.default_rng(0)


def readings(n, wear):
    load = rng.normal(size=n)
    columns = [50 + 8 * load, 3 + 0.5 * load, 60 + 4 * load, rng.gamma(4, 0.1, n) * (1 + wear)]
    return np.stack(columns, 1) + rng.normal(size=(n, 4)) * [1, 0.1, 1, 0.02]


guard = pf.Guard(alpha=0.01, random_state=0).fit(readings(3000, wear=0.0))

# %%
# The vibration rises slowly, by 60 % in the end. Single readings are hardly unusual; their sequence is.
stream = np.concatenate([readings(1500, 0.0), readings(1500, np.linspace(0, 0.6, 1500))])
quiet = readings(3000, 0.0)
worn, same = guard.monitor(alpha=0.01), guard.monitor(alpha=0.01)
evidence = {
    "pump that wears": worn.update(guard.anomaly_score(stream)),
    "pump as before": same.update(guard.anomaly_score(quiet)),
}
print(worn)
print(same)

figure, (top, bottom) = plt.subplots(2, 1, figsize=(9, 6), layout="constrained", sharex=True, height_ratios=(2, 3))
top.plot(stream[:, 3], ".", markersize=2, color="#666666")
top.set(
    ylabel="vibration, mm/s", title=f"alarm after {worn.alarm_at} readings, {worn.alarm_at - 1500} after the wear began"
)
pf.plot.martingale(evidence, 0.01, ax=bottom, change_at=1500)
bottom.set_xlabel("reading")
plt.show()
