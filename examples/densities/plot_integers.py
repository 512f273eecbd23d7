"""
Counts are not densities
========================

A density of integers can be made as large as one likes: a flow that sits on the integers has an unbounded likelihood.
Dequantization makes the likelihood of counts a probability, with a kind that says that it is a lower bound.
"""

import warnings

import matplotlib.pyplot as plt
import numpy as np
import torch

import pushforward as pf
from pushforward.transforms import Chain, UniformDequantize

rng = np.random.default_rng(0)
counts = np.where(rng.random(4000) < 0.3, 0, rng.poisson(6, 4000)).clip(0, 19)[:, None]
new = torch.tensor(np.where(rng.random(4000) < 0.3, 0, rng.poisson(6, 4000)).clip(0, 19)[:, None])

# %%
# The wrong way: a density of the integers. It finds the integers and rises with every step of training, and ``fit`` warns.
torch.manual_seed(0)
wrong = pf.models.NSF(1, hidden=(32,), bins=32)
steps, values = (100, 400, 1600), []
with warnings.catch_warnings(record=True, action="always") as said:
    for more in (100, 300, 1200):
        pf.fit(wrong, counts, validation=None, max_steps=more, learning_rate=5e-3, seed=0, progress="silent")
        values.append(wrong.log_prob(new.float()).mean().item())
print(said[0].message)
print(
    "log-density of new counts:", ", ".join(f"{v:.2f} nats after {n} steps" for n, v in zip(steps, values, strict=True))
)

# %%
# The right way: noise from 0 to 1 is added inside the model, and the result is a bound of a log-probability.
inner = pf.models.NSF(1, hidden=(32,), bins=16)
model = pf.models.Flow(Chain(UniformDequantize(1, levels=20), inner.chain), inner.base)
pf.fit(model, counts, max_steps=600, learning_rate=5e-3, seed=0, progress="silent")
found = model.evaluate(new, samples=32)
print(found)

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
pf.plot.density(wrong, ax=left, limits=(-0.5, 12.5), points=4000, names=["count"], label="density on the reals")
left.set_title("a density finds the integers")
pf.plot.density(model, new, ax=right, limits=(0, 19), names=["count"], label="model")
right.set_title(f"probabilities; mean {found.value.mean():.2f} nats ({found.kind.value})")
plt.show()
