"""
Densities with borders
======================

Waiting times are positive and fractions lie between 0 and 1. A flow on the reals puts mass beyond these borders. ``bounds=`` maps the
allowed interval to the reals first, so no mass is lost, and the density stays exact.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch

import pushforward as pf

rng = np.random.default_rng(0)
fractions, new = (rng.beta(0.7, 2.0, (n, 1)).clip(1e-6, 1 - 1e-6) for n in (3000, 5000))

# %%
# Without and with the border. In a chain of your own the transform is ``pf.transforms.Bounds``.
options = {"max_steps": 400, "learning_rate": 5e-3, "random_state": 0}
free = pf.FlowDensity(**options).fit(fractions)
bounded = pf.FlowDensity(bounds=[(0, 1)], **options).fit(fractions)
print(bounded.model_.kind, "on", bounded.model_.measure)
print("log-density outside:", bounded.score_samples([[1.2]]))

# %%
# How much mass each puts outside (0, 1), from 20,000 samples, and the mean log-density of new rows.
figure, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained", sharey=True)
exact, grid = torch.distributions.Beta(0.7, 2.0), torch.linspace(0.002, 0.5, 400)
for ax, density, name in zip(axes, (free, bounded), ("on the reals", "on (0, 1)"), strict=True):
    drawn = density.sample(20_000, random_state=0)
    lost = np.mean((drawn <= 0) | (drawn >= 1))
    print(f"{name}: {lost:.2%} of the samples outside, {density.score_samples(new).mean():.3f} nats of new rows")
    pf.plot.density(density, fractions, ax=ax, limits=(-0.1, 0.5), names=["fraction"], label=f"flow {name}")
    ax.plot(grid, exact.log_prob(grid).exp(), "k--", linewidth=1)
    ax.set(title=f"flow {name}: {lost:.1%} of its mass is outside\n(dashed: the true density)", ylim=(0, 6))
plt.show()
