"""
Answer, abstain, or give a set
==============================

A classifier is right on most rows and wrong on some. From held-out rows it learns when to abstain, so that at most 10 % of its answers are
wrong, and for each row a set of labels that contains the right one with a probability of 95 %.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch

import pushforward as pf

rng, _ = np.random.default_rng(0), torch.manual_seed(0)
centers = rng.normal(size=(5, 8))


def rows(n):
    y = rng.integers(0, 5, n)
    return torch.tensor(centers[y] + 0.9 * rng.normal(size=(n, 8)), dtype=torch.float32), y


(x, y), (held, held_y), (new, new_y) = rows(1500), rows(3000), rows(3000)
net = torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.ReLU(), torch.nn.Linear(64, 5))
optimizer = torch.optim.Adam(net.parameters(), 1e-2)
for _ in range(200):
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(net(x), torch.tensor(y)).backward()
    optimizer.step()
held_logits, logits = (net(part).detach().numpy() for part in (held, new))

# %%
# One call gives a temperature, the rule for abstention, and the sets, each with its promise.
calibration = pf.detection.selective.ClassifierCalibration.fit(held_logits, held_y, coverage=0.95, risk=0.1)
wrong, doubt = logits.argmax(1) != new_y, calibration.uncertainty(logits)
answered, sets = calibration.accept(doubt), calibration.sets(logits)
print(
    f"all rows: {wrong.mean():.1%} wrong; answered {answered.mean():.1%}, of which {wrong[answered].mean():.1%} wrong"
)
print(
    f"sets of {sets.sum(1).mean():.2f} labels contain the right one for {sets[np.arange(3000), new_y].mean():.1%} of the rows"
)

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
curve = pf.detection.selective.risk_coverage_curve(doubt, wrong)
left.plot(curve.coverage, curve.risk, color="#0072B2", label="new rows")
left.plot(answered.mean(), wrong[answered].mean(), "o", color="#D55E00", label="the rule")
left.axhline(0.1, color="black", linestyle="--", linewidth=0.8, label="promised risk")
left.set(
    xlabel="fraction of the rows that are answered", ylabel="fraction of the answers that are wrong", ylim=(0, None)
)
left.legend(frameon=False, loc="upper left")
size = sets.sum(1)
for k in range(1, size.max() + 1):
    right.bar(k, (size == k).mean(), color="#56B4E9")
    right.bar(k, ((size == k) & wrong).mean(), color="#D55E00")
right.set(xlabel="labels in the set", ylabel="fraction of the rows", title="orange: the network's own answer is wrong")
plt.show()
