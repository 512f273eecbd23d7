"""
Writing a model
===============

A model is a chain of transforms over a base distribution, built in its constructor. Training, exact densities, sampling, files and fast
scorers then need no more code. This one alternates rotations, which are learned, with curves of each coordinate.
"""

import pathlib
import tempfile

import matplotlib.pyplot as plt
import torch

import pushforward as pf
from pushforward.distributions import Normal
from pushforward.models import Model
from pushforward.registry import register
from pushforward.transforms import Chain, Householder, Monotone, SplineTransformer, Standardize


@register("models")
class Rotations(Model):
    """Rotations and splines of each coordinate, again and again."""

    def __init__(self, features: int, layers: int = 6, bins: int = 12) -> None:
        parts = []
        for _ in range(layers):
            parts += [Householder(features), Monotone(features, SplineTransformer(bins))]
        super().__init__(Chain(Standardize(features), *parts), Normal(features))
        self.features, self.layers, self.bins = features, layers, bins  # a file stores the arguments


def ring(n, seed):
    generator = torch.Generator().manual_seed(seed)
    angle = 6.2832 * torch.rand(n, generator=generator)
    return torch.stack([angle.cos(), angle.sin()], 1) + 0.12 * torch.randn(n, 2, generator=generator)


torch.manual_seed(0)
model = Rotations(2)
result = pf.fit(model, ring(3000, 0), validation=0.1, max_steps=500, learning_rate=0.01, seed=0, progress="silent")
print(f"new rows: {model.log_prob(ring(2000, 1)).mean():.3f} nats")

# %%
# The file has the arguments and the weights; the class is found by its name.
with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder, "model.safetensors")
    pf.save(model, path)
    again = pf.load(path)
print("same density after loading:", torch.equal(again.log_prob(ring(10, 2)), model.log_prob(ring(10, 2))))

figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
pf.plot.density(model, ring(300, 0), ax=left)
pf.plot.samples({"data": ring(1000, 3), "samples": model.sample(1000, seed=0)}, ax=middle)
pf.plot.training(result, ax=right)
plt.show()
