"""
Angles
======

180 and -180 degrees are the same direction, which a density on the line does not know. A circular spline flow over a uniform base is
a density on the circle, or for several angles on the torus: its values and samples join at the border.
"""

import math

import matplotlib.pyplot as plt
import numpy as np
import torch

import pushforward as pf
from pushforward.distributions import Uniform
from pushforward.transforms import Chain, CircularSplineTransformer, MaskedAutoregressive

rng = np.random.default_rng(0)
first = rng.vonmises(0, 2.0, 3000)  # wind at noon, around north
second = first + rng.vonmises(math.pi / 2, 6.0, 3000)  # in the evening it has turned
x = torch.tensor(np.angle(np.exp(1j * np.stack([first, second], 1))), dtype=torch.float32)

# %%
# A masked network reads the first angle as cosine and sine and gives the spline of the second.
torch.manual_seed(0)
layers = [
    MaskedAutoregressive(2, CircularSplineTransformer(bins=12), order=order, hidden=(32, 32))
    for order in (None, "reverse")
]
model = pf.models.Flow(Chain(*layers), Uniform(2, -math.pi, math.pi))
pf.fit(model, x, max_steps=500, learning_rate=5e-3, seed=0, progress="silent")

# %%
# The same density on both sides of the border, and a sample that crosses it.
edge = torch.tensor([[1.5, math.pi - 1e-4], [1.5, -math.pi + 1e-4]])
print("density just below 180 and just above -180 degrees:", model.log_prob(edge).exp())
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
pf.plot.density(model, x[:500], ax=left, limits=[(-math.pi, math.pi)] * 2, names=("noon, radians", "evening, radians"))
drawn = model.sample(3000, seed=0)
right.remove()
right = figure.add_subplot(1, 2, 2, projection="polar", theta_offset=math.pi / 2, theta_direction=-1)
edges = np.linspace(-math.pi, math.pi, 37)
for angles, name, color in ((x[:, 0], "noon", "#0072B2"), (x[:, 1], "evening", "#D55E00")):
    right.stairs(np.histogram(angles, edges)[0], edges, color=color, label=f"{name}, data", linewidth=2)
for k, color in ((0, "#0072B2"), (1, "#D55E00")):
    right.stairs(
        np.histogram(drawn[:, k], edges)[0],
        edges,
        color=color,
        linestyle=":",
        label="noon, samples" if k == 0 else "evening, samples",
    )
right.set_yticklabels([])
right.set_title("wind direction: data and samples")
right.legend(loc="lower left", bbox_to_anchor=(1.0, 0.0), frameon=False)
plt.show()
