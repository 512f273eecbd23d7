"""
Is the posterior right?
=======================

Two posteriors of the same simulator: one that was trained, and one whose draws are made too narrow on purpose. Ranks of the true
parameters in fresh simulations must be uniform; the gray bands contain the curves of a right posterior at 95 % of the levels.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch

import pushforward as pf

prior = torch.distributions.Normal(torch.zeros(2), 1.0)


def simulator(theta):
    return theta + 0.5 * torch.randn_like(theta)


torch.manual_seed(0)
posterior = pf.inference.NPE(prior).fit(simulator=simulator, simulations=1000, max_steps=200, progress="silent")
report = pf.inference.check(posterior, simulator, x=torch.tensor([0.5, -0.5]), simulations=200)
print(report)

# %%
# The same with draws that are pulled halfway to their mean.
theta = prior.sample((200,))
x = simulator(theta)
ranks = {"trained posterior": [], "too narrow": []}
for k in range(200):
    draws = posterior.sample(100, x[k], seed=k)[:, 0]
    narrow = draws.mean() + 0.5 * (draws - draws.mean())
    for name, values in (("trained posterior", draws), ("too narrow", narrow)):
        ranks[name].append(float((values < theta[k, 0]).double().mean()))
levels = np.linspace(0, 1, 101)
fractions = {name: np.mean(np.array(values)[:, None] <= levels, axis=0) for name, values in ranks.items()}

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
pf.plot.coverage(levels, fractions, ax=left, count=200, difference=True, name="rank of the first parameter")
left.set_title("200 fresh simulations")
covered = {name: [np.mean(np.abs(np.array(v) - 0.5) <= c / 2) for c in levels] for name, v in ranks.items()}
pf.plot.coverage(levels, covered, ax=right, count=200, name="promised coverage of central intervals")
right.set_title("coverage of the first parameter")
plt.show()
