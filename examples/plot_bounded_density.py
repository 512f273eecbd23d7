"""
Densities with borders
======================

Waiting times are positive and fractions lie between 0 and 1. A flow on the reals would put mass beyond these borders; a
transform at the front of the chain maps the allowed interval to the reals, so none is lost, and the density stays exact.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch

import pushforward as pf
from pushforward.transforms import Chain, Inverse, Sigmoid

rng = np.random.default_rng(0)
fractions = rng.beta(0.7, 2.0, 3000)
fractions = fractions[(fractions > 1e-6) & (fractions < 1 - 1e-6)]


def fitted(model):
    pf.fit(model, fractions[:, None], max_steps=400, learning_rate=5e-3, seed=0, progress="silent")
    return model


# %%
# Without and with the border: ``Inverse(Sigmoid(1))`` is the logit, and its domain is the interval (0, 1).
torch.manual_seed(0)
free = fitted(pf.models.NSF(1, hidden=(16,)))
inner = pf.models.NSF(1, hidden=(16,))
bounded = fitted(pf.models.Flow(Chain(Inverse(Sigmoid(1)), inner.chain), inner.base))
print(bounded.kind, bounded.measure, "log-density outside:", bounded.log_prob(torch.tensor([[1.2]])).item())

# %%
# How much mass each puts outside (0, 1), from 20,000 samples, and the held-out log-density of new rows.
new = torch.tensor(rng.beta(0.7, 2.0, 5000)).float().clamp(1e-6, 1 - 1e-6)[:, None]
figure, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained", sharey=True)
exact = torch.distributions.Beta(0.7, 2.0)
for ax, model, name in zip(axes, (free, bounded), ("on the reals", "on (0, 1)"), strict=True):
    drawn = model.sample(20_000, seed=0)
    lost = ((drawn <= 0) | (drawn >= 1)).float().mean()
    print(f"{name}: {lost:.2%} of the samples outside, {model.log_prob(new).mean():.3f} nats of new rows")
    pf.plot.density(model, fractions, ax=ax, limits=(-0.1, 0.5), names=["fraction"], label=f"flow {name}")
    grid = torch.linspace(0.002, 0.5, 400)
    ax.plot(grid, exact.log_prob(grid).exp(), "k--", linewidth=1)
    ax.set(title=f"flow {name}: {lost:.1%} of its mass is outside\n(dashed: the true density)", ylim=(0, 6))
plt.show()
