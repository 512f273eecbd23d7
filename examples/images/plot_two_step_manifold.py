"""
Data near a curve
=================

Rows near a curve in space have no bounded density on space: likelihoods there diverge and mislead. A two-step model first learns the
curve with an autoencoder, then a density on it, and says how far each row is from the curve.
"""

import matplotlib.pyplot as plt
import torch

import pushforward as pf
from pushforward.detection.scores import DensityAndDistance

torch.manual_seed(0)


def rows(n):
    t = 3 * torch.rand(n, 1) ** 0.5
    return torch.cat([(2 * t).cos(), (2 * t).sin(), t], 1)


x = rows(2000)
dimension = pf.data.intrinsic_dimension(x)
print(f"intrinsic dimension {dimension:.2f}")

# %%
# Step one: an autoencoder with that many latents. Step two: a density of the latents. The test of injectivity says whether the
# value below is exact.
model = pf.models.TwoStep(pf.models.AutoEncoder(3, latent=round(dimension)), pf.distributions.GaussianMixture(1, 6))
done = pf.training.fit_two_step(model, x, max_steps=2500, seed=0, progress="silent")
print(done.injectivity)

# %%
# Two numbers for each row, on the curve and beside it.
new, beside = rows(300), rows(300) + torch.tensor([0.0, 0.0, 0.5])
on, off = model.evaluate(new), model.evaluate(beside)
print(on)
score = DensityAndDistance(model).fit(x)
print(f"AUROC of density and distance: {pf.detection.auroc(score(new), score(beside)):.3f}")

figure = plt.figure(figsize=(11, 4.6), layout="constrained")
left = figure.add_subplot(1, 2, 1, projection="3d")
found = left.scatter(*new.T.numpy(), c=on.value.detach().exp().numpy(), cmap="viridis", s=8)
left.scatter(*beside.T.numpy(), color="#D55E00", s=4)
figure.colorbar(found, ax=left, label="density along the curve", shrink=0.7)
left.set(xlabel="x1", ylabel="x2", zlabel="x3", title="new rows (color: density), and rows beside")
for axis in (left.xaxis, left.yaxis, left.zaxis):
    axis.set_major_locator(plt.MaxNLocator(3))
right = figure.add_subplot(1, 2, 2)
for part, color, name in ((on, "#0072B2", "new rows"), (off, "#D55E00", "rows beside the curve")):
    right.plot(part.value.detach(), part.residual.detach().clamp(min=1e-7).sqrt(), ".", color=color, label=name)
right.set(xlabel="log-density along the curve, nats", ylabel="distance from the curve", yscale="log")
right.legend(frameon=False, loc="lower left")
right.set_ylim(3e-4, 3)
plt.show()
