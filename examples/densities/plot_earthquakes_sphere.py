"""
A density on the sphere
=======================

Points on the Earth have no density on latitude and longitude that makes sense at the poles. This flow maps the sphere to itself, over a
uniform base, and its density is per square unit of the surface. The "earthquakes" are made: three belts like those around oceans.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch

import pushforward as pf
from pushforward.distributions import UniformSphere
from pushforward.transforms import Chain, Householder, SphereAutoregressive

rng = np.random.default_rng(0)


def belt(n, pole, height, width):
    """Points near a circle around a pole: at a height along it, with a normal spread."""
    axis = np.array(pole) / np.linalg.norm(pole)
    across = np.cross(axis, [0.3, 0.5, 0.8])
    across /= np.linalg.norm(across)
    h, angle = np.clip(rng.normal(height, width, n), -1, 1)[:, None], rng.uniform(0, 2 * np.pi, n)[:, None]
    return h * axis + np.sqrt(1 - h**2) * (np.cos(angle) * across + np.sin(angle) * np.cross(axis, across))


places = np.concatenate(
    [belt(1500, (-1, 0.2, 0.1), 0.2, 0.08), belt(800, (0.3, 0.4, 0.9), 0.75, 0.04), belt(700, (0.2, 1, 0), 0, 0.03)]
)
x = torch.tensor(places, dtype=torch.float32)

# %%
# Rotations between the layers let every direction be a height once.
torch.manual_seed(0)
layers = [part for _ in range(6) for part in (SphereAutoregressive(bins=16, hidden=(48, 48)), Householder(3))]
model = pf.models.Flow(Chain(*layers), UniformSphere(3))
pf.fit(model, x, validation=0.1, max_steps=400, learning_rate=5e-3, seed=0, progress="silent")
print(model.evaluate(x[:500]))

# %%
# The area-weighted sum over a grid of the whole sphere is the mass, which must be 1.
lon, lat = np.meshgrid(np.radians(np.linspace(-179, 179, 180)), np.radians(np.linspace(-89, 89, 90)))
grid = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], -1)
with torch.no_grad():
    density = model.evaluate(torch.tensor(grid, dtype=torch.float32)).value.exp().numpy()
print("mass:", round(float((density * np.cos(lat)).sum() * np.radians(2) ** 2), 3))

figure = plt.figure(figsize=(10, 4.8), layout="constrained")
ax = figure.add_subplot(projection="mollweide")
image = ax.pcolormesh(lon, lat, density, cmap="viridis", vmax=np.quantile(density, 0.995), rasterized=True)
ax.plot(np.arctan2(places[:, 1], places[:, 0])[::8], np.arcsin(places[:, 2])[::8], ".", color="white", markersize=2)
figure.colorbar(image, ax=ax, label="density per unit of area")
ax.set_xticklabels([])
ax.set_title("events (white) and the density of the flow")
plt.show()
