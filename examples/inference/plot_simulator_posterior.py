"""
The posterior of a simulator
============================

A damped oscillation of unknown frequency and damping, seen at 20 times with noise. No likelihood is written down: neural posterior
estimation learns the posterior from 10,000 simulations, and then gives it for any observation in milliseconds.
"""

import matplotlib.pyplot as plt
import torch

import pushforward as pf

torch.manual_seed(0)
time = torch.linspace(0, 5, 20)


def simulator(theta):
    frequency, damping = theta[:, :1], theta[:, 1:]
    return torch.exp(-damping * time) * torch.cos(frequency * time) + 0.1 * torch.randn(len(theta), 20)


prior = torch.distributions.Uniform(torch.tensor([1.0, 0.1]), torch.tensor([4.0, 1.0]))
truth = torch.tensor([[2.5, 0.3]])
observation = simulator(truth)[0]
posterior = pf.inference.NPE(prior, members=1).fit(
    simulator=simulator, simulations=10_000, max_steps=800, progress="silent"
)
draws = posterior.sample(2000, x=observation, seed=0)
print("mean and spread:", draws.mean(0), draws.std(0))

# %%
# Beside it the posterior on a grid, from the likelihood that this simulator happens to have.
f, d = torch.meshgrid(torch.linspace(2.2, 2.8, 120), torch.linspace(0.1, 0.6, 120), indexing="ij")
curve = torch.exp(-d[..., None] * time) * torch.cos(f[..., None] * time)
exact = (-0.5 * ((observation - curve) / 0.1).square().sum(-1)).flatten().softmax(0).reshape(120, 120)

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
fine = torch.linspace(0, 5, 200)
for frequency, damping in draws[:60]:
    left.plot(fine, torch.exp(-damping * fine) * torch.cos(frequency * fine), color="#56B4E9", linewidth=0.6, alpha=0.5)
left.plot(time, observation, "o", color="black", markersize=4)
left.set(xlabel="time, s", ylabel="amplitude", title="the observation, and curves of 60 draws")
pf.plot.samples(draws, ax=right, names=("frequency, 1/s", "damping, 1/s"), size=3)
right.contour(
    f.numpy(),
    d.numpy(),
    exact.numpy(),
    levels=(exact.max() * torch.tensor([0.01, 0.1, 0.5])).tolist(),
    colors="black",
    linewidths=1,
)
right.plot(*truth[0], "*", color="#D55E00", markersize=14)
right.set(xlim=(2.2, 2.8), ylim=(0.1, 0.6), title="draws, exact posterior (lines), truth (star)")
plt.show()
