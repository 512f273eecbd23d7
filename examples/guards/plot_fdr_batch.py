"""
Anomalies in a batch, with a bound on the false ones
====================================================

Whoever inspects the rows of a night wants to know how many of the reported ones are false. ``guard.select(rows, fdr=0.1)`` reports rows so
that the expected fraction of normal ones among them is at most 10 %, whatever their number (Bates et al. 2023).
"""

import matplotlib.pyplot as plt
import numpy as np

import pushforward as pf

rng = np.random.default_rng(0)
guard = pf.Guard(alpha=0.05, calibration=2000, effort="fast", random_state=0).fit(rng.normal(size=(6000, 4)))


def batch(anomalies, n=400):
    """Rows, the last of which are anomalies."""
    x = rng.normal(size=(n, 4))
    x[n - anomalies :] = rng.normal(size=(anomalies, 4)) + rng.choice([-2.5, 2.5], 4)
    return x


# %%
# 40 nights for each number of anomalies. The alarms of ``predict`` are 5 % of the normal rows, so among few anomalies most are false.
numbers = [4, 10, 20, 40, 80]
results = {"select(fdr=0.1)": [], "predict (alpha=0.05)": []}
for k in numbers:
    false, found = {name: [] for name in results}, {name: [] for name in results}
    for _ in range(40):
        p = guard.p_value(batch(k))
        for name, chosen in zip(results, (pf.detection.benjamini_hochberg(p, 0.1), p <= guard.level_), strict=True):
            false[name].append(chosen[:-k].sum() / max(1, chosen.sum()))
            found[name].append(chosen[-k:].mean())
    for name in results:
        results[name].append((np.mean(false[name]), np.std(false[name]) / 40**0.5, np.mean(found[name])))
        print(f"{k:3} anomalies, {name}: {results[name][-1][0]:.1%} of the reported rows are normal")

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
for (name, values), color in zip(results.items(), ("#0072B2", "#D55E00"), strict=True):
    mean, error, found = np.transpose(values)
    left.errorbar(numbers, mean, 2 * error, fmt="o-", color=color, label=name, capsize=3)
    right.plot(numbers, found, "o-", color=color, label=name)
left.axhline(0.1, color="black", linestyle="--", linewidth=0.8)
left.set(
    xlabel="anomalies among 400 rows", ylabel="normal rows among the reported", ylim=(0, 1), title="false discoveries"
)
right.set(xlabel="anomalies among 400 rows", ylabel="fraction of the anomalies", ylim=(0, 1.05), title="what is found")
left.legend(frameon=False)
plt.show()
