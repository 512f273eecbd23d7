"""
A conditional density
=====================

The density of one column given another: here the power of a wind turbine given the wind. Regression would give one number
for each wind; the flow gives the whole distribution, which has two peaks, because some of the turbines are old.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch

import pushforward as pf

rng = np.random.default_rng(0)


def turbine(n):
    wind = rng.weibull(2.0, n) * 8
    power = 3 / (1 + np.exp(-(wind - 8) / 1.2)) + 0.05 * rng.normal(size=n) * (1 + 3 * np.exp(-((wind - 8) ** 2) / 10))
    return wind, np.where(rng.random(n) < 0.15, 0.6 * power, power)[:, None]  # one turbine of seven is old


wind, power = turbine(4000)

torch.manual_seed(0)
model = pf.models.NSF(features=1, context=1, hidden=(32, 32))
pf.fit(model, power, context=wind[:, None], max_steps=600, learning_rate=5e-3, seed=0, progress="silent")

# %%
# ``context=`` chooses the wind. Each curve is a density of the power in MW, so its area is 1.
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
for speed, color in zip((5.0, 8.0, 12.0), pf.plot.COLORS, strict=False):
    name = f"wind {speed:g} m/s"
    pf.plot.density(model, context=[speed], limits=(-0.3, 3.5), ax=left, names=["power, MW"], label=name, color=color)
levels = torch.linspace(0.5, 20, 60)[:, None]
draws = model.sample(500, levels, seed=0)[..., 0]
low, middle, high = torch.quantile(draws, torch.tensor([0.05, 0.5, 0.95]), dim=0)
right.plot(wind, power, ".", markersize=1.5, color="#999999")
right.fill_between(levels[:, 0], low, high, alpha=0.3, color=pf.plot.COLORS[0], label="90 % of the samples")
right.plot(levels[:, 0], middle, color=pf.plot.COLORS[0], label="median of the samples")
right.set(xlabel="wind, m/s", ylabel="power, MW", ylim=(-0.5, 4.5))
right.legend(loc="upper left", frameon=False)

# %%
# How many new rows lie in their own interval of 90 %:
wind, power = turbine(1000)
draws = model.sample(500, torch.tensor(wind[:, None]).float(), seed=1)[..., 0]
low, high = torch.quantile(draws, torch.tensor([0.05, 0.95]), dim=0)
print(f"{np.mean((power[:, 0] >= low.numpy()) & (power[:, 0] <= high.numpy())):.1%} of 1,000 new rows")
plt.show()
