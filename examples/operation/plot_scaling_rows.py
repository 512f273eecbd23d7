"""
Many rows
=========

How long a guard needs for tables of growing size, and whether its promise holds at each. The score learns from at most 5,000 rows, so
fitting soon stops growing; scoring is linear in the rows, in parts, with memory that does not grow.
"""

import time

import matplotlib.pyplot as plt
import numpy as np

import pushforward as pf
from pushforward.detection import realized_interval

rng = np.random.default_rng(0)
sizes = [1000, 3000, 10_000, 30_000, 100_000]
fits, scores, rates, bands = [], [], [], []
for n in sizes:
    x = rng.normal(size=(n, 8)) @ rng.normal(size=(8, 8))
    train, new = x[: n // 2], x[n // 2 :]
    start = time.perf_counter()
    guard = pf.Guard(alpha=0.05, effort="fast", random_state=0).fit(train)
    middle = time.perf_counter()
    rates.append(np.mean(guard.predict(new) == -1))
    scores.append((time.perf_counter() - middle) / len(new) * 1e6)
    fits.append(middle - start)
    bands.append(realized_interval(guard.calibrator_.n, len(new), 0.05, level=0.99))  # 95 % for all five together
    print(f"{n:7,} rows: fit {fits[-1]:5.2f} s, score {scores[-1]:5.1f} us a row, {rates[-1]:.2%} alarms")

# %%
# From files a table may be larger than memory: ``pushforward score guard.safetensors table.parquet -o scores.csv`` reads it in parts.
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
left.semilogx(sizes, fits, "o-", color="#0072B2")
left.set(
    ylim=(0, 1.1 * max(fits)), xlabel="rows of the table", ylabel="seconds to fit on half of them", title="fitting"
)
twin = left.twinx()
twin.semilogx(sizes, scores, "s--", color="#D55E00")
twin.set(ylim=(0, 2 * max(scores)))
twin.set_ylabel("microseconds to score a row (dashed)", color="#D55E00")
low, high = np.transpose(bands)
right.fill_between(sizes, low, high, color="#DDDDDD", label="99 % of such guards")
right.semilogx(sizes, rates, "o-", color="#0072B2", label="alarms of new rows")
right.axhline(0.05, color="black", linestyle="--", linewidth=0.8)
right.set(xlabel="rows of the table", ylabel="rate of false alarms", ylim=(0, 0.12), title="the promise: 5 %")
right.legend(frameon=False)
plt.show()
