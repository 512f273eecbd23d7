"""Learn the posterior of a simulator, check it, and see whether the observation is like the simulations.

python examples/inference_simulator.py          # under a minute; writes inference_simulator.png
"""

import torch

import pushforward as pf


def simulator(theta):
    """A damped oscillation of unknown frequency and damping, seen at 20 times with noise."""
    time = torch.linspace(0, 5, 20)
    frequency, damping = theta[:, :1], theta[:, 1:]
    return torch.exp(-damping * time) * torch.cos(frequency * time) + 0.1 * torch.randn(len(theta), 20)


prior = torch.distributions.Uniform(torch.tensor([1.0, 0.1]), torch.tensor([4.0, 1.0]))
observation = simulator(torch.tensor([[2.5, 0.3]]))[0]
post = pf.inference.NPE(prior, members=5).fit(simulator=simulator, simulations=2000, max_steps=800)
print(post.sample(1000, x=observation).mean(0))
print(post.log_prob(torch.tensor([[2.5, 0.3]]), x=observation))
report = pf.inference.check(post, simulator, x=observation)
print(report)
report.plot("inference_simulator.png")
post.save("posterior.safetensors")
