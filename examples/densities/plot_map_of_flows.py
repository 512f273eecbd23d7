"""
A map of flows
==============

Every family of flows for vectors, trained on the same 1,500 rows for the same number of steps. The titles say whether its density
is exact, the mean log-density of 1,000 new rows, which direction takes one pass, and the seconds of training here. Longer
training and larger networks change the order.
"""

import time

import matplotlib.pyplot as plt
import numpy as np
import torch

import pushforward as pf

STEPS = 150
rng = np.random.default_rng(0)


def spirals(n):
    t = 3 * np.sqrt(rng.uniform(0.02, 1, n)) * np.pi / 2
    x = np.stack([t * np.cos(2 * t), t * np.sin(2 * t)], 1) * rng.choice([-1, 1], (n, 1))
    return torch.tensor(x / 2 + 0.1 * rng.normal(size=(n, 2)), dtype=torch.float32)


train, held, new = spirals(1500), spirals(300), spirals(1000)
torch.manual_seed(0)
m, h = pf.models, {"hidden": (32, 32)}
families = [m.NICE(2, **h), m.RealNVP(2, **h), m.NSF(2, **h), m.MAF(2, **h), m.IAF(2, **h), m.NAF(2, **h), m.BNAF(2)]
families += [m.UMNN(2, **h), m.SOS(2, **h), m.BernsteinFlow(2, **h), m.GaussianizationFlow(2), m.CNF(2, **h)]
families += [m.IResNet(2, blocks=4, hidden=(32,)), m.ResidualFlow(2, blocks=4, hidden=(32,))]

# %%
# One panel for each: the same axes, and the same scale of colors.
figure, axes = plt.subplots(3, 5, figsize=(13, 9.4), layout="constrained")
axes.flat[0].plot(*train.T, ".", markersize=2, color="#0072B2")
axes.flat[0].set(title="1,500 training rows", xticks=[], yticks=[], xlim=(-3, 3), ylim=(-3, 3), aspect="equal")
grid = torch.cartesian_prod(torch.linspace(-3, 3, 80), torch.linspace(-3, 3, 80))
for ax, model in zip(axes.flat[1:], families, strict=True):
    name = type(model).__name__
    options = {"validation": held, "max_steps": STEPS, "learning_rate": 1e-2}
    result = pf.fit(model, train, seed=0, progress="silent", **options)
    start = time.perf_counter()
    with torch.no_grad():
        found = model.evaluate(new)
        picture = model.evaluate(grid).value.exp().reshape(80, 80).numpy()
    rate = 7400 / (time.perf_counter() - start)
    print(f"{name:20} {result.seconds:5.1f} s  {found.value.mean():6.3f} nats  {rate:9,.0f} rows/s  fast: {model.fast}")
    ax.imshow(picture.T, origin="lower", extent=(-3, 3, -3, 3), cmap="viridis", vmin=0, vmax=0.25)
    fast = {"both": "both fast", "log_prob": "density fast", "sample": "samples fast"}[model.fast]
    ax.set(
        xticks=[],
        yticks=[],
        title=f"{name}: {found.kind.value}\n{found.value.mean():.2f} nats\n{fast}, {result.seconds:.1f} s",
    )
plt.show()
