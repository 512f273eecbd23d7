"""
Writing a transform
===================

Two methods make a transform: ``encode``, with its log-determinant, and ``decode``. Then it can stand anywhere in a chain, be trained,
saved and sampled. This one bends the line so that a normal base becomes skew and long-tailed (Jones and Pewsey 2009).
"""

import matplotlib.pyplot as plt
import torch
from torch import nn

import pushforward as pf
from pushforward.registry import register
from pushforward.transforms import Affine, Chain, Standardize, Step, Transform


@register("transforms")
class SinhArcsinh(Transform):
    """z = sinh(a + b asinh x) with b > 0; log dz/dx = log b + log cosh(a + b asinh x) - 1/2 log(1 + x^2)."""

    autoregressive_order = "any"  # each coordinate depends on itself alone

    def __init__(self, features: int) -> None:
        super().__init__(features)
        self.features = features  # stored under its own name, so that files can describe it
        self.a, self.log_b = nn.Parameter(torch.zeros(features)), nn.Parameter(torch.zeros(features))

    def encode(self, x, context=None, *, noise=None):
        t = self.a + self.log_b.exp() * torch.asinh(x)
        return Step(torch.sinh(t), (self.log_b + torch.cosh(t).log() - 0.5 * torch.log1p(x**2)).sum(-1))

    def decode(self, z, context=None, *, noise=None):
        return torch.sinh((torch.asinh(z) - self.a) / self.log_b.exp())


# %%
# Is the log-determinant right? autograd knows it.
part, x = SinhArcsinh(1), torch.tensor([[0.7], [-0.4]], requires_grad=True)
part.a.data.fill_(0.5)
slope = torch.autograd.grad(part.encode(x).z.sum(), x)[0]
print("log-determinants:", part.encode(x).contribution.tolist(), "by autograd:", slope.log().flatten().tolist())

# %%
# The data are waiting times with a long right tail. A normal distribution is the same chain without the transform.
torch.manual_seed(0)
data = torch.distributions.Gamma(2.0, 0.5).sample((3000, 1))
bent = Chain(Standardize(1), Affine(1, trainable=True), SinhArcsinh(1), Affine(1, trainable=True))
normal, skew = (pf.models.Flow(chain, pf.distributions.Normal(1)) for chain in (Chain(Standardize(1)), bent))
normal.initialize(data)
pf.fit(skew, data, max_steps=800, learning_rate=0.02, seed=0, progress="silent")
figure, ax = plt.subplots(figsize=(6.5, 4), layout="constrained")
for model, name, color in ((skew, "with the new transform", "#0072B2"), (normal.eval(), "normal", "#D55E00")):
    print(f"{name}: {model.log_prob(data).mean():.3f} nats")
    pf.plot.density(
        model, data if model is skew else None, limits=(-4, 20), ax=ax, names=["minutes"], label=name, color=color
    )
plt.show()
