"""
A network that abstains
=======================

A classifier answers for every input, also for one that is like nothing it has learned. A guard reads the network in the same forward
pass, gives a p-value for each input, and abstains where it is small: at most 5 % of the inputs like the held-out ones.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch

import pushforward as pf

rng, _ = np.random.default_rng(0), torch.manual_seed(0)
centers = np.array([[0, 2.0], [-2, -1], [2, -1]])


def rows(n):
    y = rng.integers(0, 3, n)
    return torch.tensor(centers[y] + 0.6 * rng.normal(size=(n, 2)), dtype=torch.float32), torch.tensor(y)


(x, y), (held, _), (new, truth) = rows(1500), rows(1000), rows(1000)
net = torch.nn.Sequential(torch.nn.Linear(2, 128), torch.nn.ReLU(), torch.nn.Linear(128, 3))
optimizer = torch.optim.Adam(net.parameters(), 5e-3)
for _ in range(300):
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(net(x), y).backward()
    optimizer.step()

# %%
# The held-out rows must be new to the network. ``out`` has the prediction, the p-value, and the reason of an alarm.
guard = pf.NetworkGuard(net.eval(), alpha=0.05).fit((x, y), calibration=held)
out = guard(new)
print(f"accuracy {(out.prediction == truth).double().mean():.3f}, alarms {out.alarm.double().mean():.3f} of new rows")
far = guard(torch.tensor([[0.0, -6.0], [7.0, 7.0]]))
print(far.prediction, far.p_value, far.reason[0])

# %%
# The confidence of the network is close to 1 far from all data, and the p-value is small there.
side = torch.linspace(-8, 8, 120)
grid = torch.cartesian_prod(side, side)
with torch.no_grad():
    confidence = net(grid).softmax(1).max(1).values.reshape(120, 120).numpy()
p_value = guard(grid).p_value.reshape(120, 120).numpy()
figure, axes = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained", sharey=True)
panels = ((confidence, "confidence of the network"), (p_value, "p-value of the guard"))
for ax, (values, name) in zip(axes, panels, strict=True):
    image = ax.pcolormesh(side.numpy(), side.numpy(), values.T, cmap="cividis", vmin=0, vmax=1)
    figure.colorbar(image, ax=ax, label=name)
    for k, color in enumerate(("#FFFFFF", "#E69F00", "#56B4E9")):
        ax.plot(*x[y == k][:150].T, ".", color=color, markeredgecolor="black", markeredgewidth=0.3)
    ax.set(xlabel="x1", ylabel="x2")
axes[1].contour(side.numpy(), side.numpy(), p_value.T, levels=[0.05], colors="white", linewidths=2)
axes[1].set_title("white line: alarms outside")
plt.show()
