"""
Scores in microseconds
======================

A model of PyTorch calls hundreds of small operations for one row. ``pf.compile_scorer`` writes the same computation as one native
program; the numbers agree to rounding, and few rows take a small part of the time. Where no native kernels are installed, both are equal.
"""

import time

import matplotlib.pyplot as plt
import torch

import pushforward as pf

x = torch.randn(2000, 6, generator=torch.Generator().manual_seed(0))
torch.manual_seed(0)
models = {
    "NSF": pf.models.NSF(6, layers=4, hidden=(64, 64)),
    "MAF": pf.models.MAF(6, layers=5, hidden=(64, 64)),
    "RealNVP": pf.models.RealNVP(6, hidden=(64, 64)),
}
rows = [1, 4, 16, 64, 256]


def microseconds(score, batch):
    """The fastest of several calls, a row."""
    times = []
    for _ in range(15):
        start = time.perf_counter()
        score(batch)
        times.append(time.perf_counter() - start)
    return min(times) / len(batch) * 1e6


# %%
# The median is of all rows; the ratio is for one row at a time.
figure, axes = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained", sharey=True)
for ax, (name, model) in zip(axes, models.items(), strict=True):
    pf.fit(model, x, max_steps=20, seed=0, progress="silent")
    fast = pf.compile_scorer(model)
    with torch.no_grad():
        difference = (fast(x) - model.log_prob(x)).abs().median().item()
        slow = [microseconds(model.log_prob, x[:n]) for n in rows]
        quick = [microseconds(fast, x[:n]) for n in rows]
    print(f"{name:8} one row: {slow[0]:6.0f} us and {quick[0]:5.0f} us; median difference {difference:.1e} nats")
    ax.loglog(rows, slow, "o-", color="#0072B2", label="model.log_prob")
    ax.loglog(rows, quick, "s-", color="#D55E00", label="compile_scorer")
    ax.set(title=f"{name}: {slow[0] / quick[0]:.0f} times faster for one row", xlabel="rows in a call")
axes[0].set(ylabel="microseconds a row")
axes[0].legend(frameon=False, loc="lower left")
plt.show()
