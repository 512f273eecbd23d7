"""
Variational inference that says when not to trust it
====================================================

Effects of coaching in eight schools, a hierarchical model. A flow is fitted to the unnormalized log-density. The shape k-hat of
the tail of the importance weights says whether its draws can be trusted: below 0.7 they can, whatever the fit looks like.
"""

import warnings

import matplotlib.pyplot as plt
import torch

import pushforward as pf
from pushforward.inference import Parameters, fit_to_target, positive, real

EFFECT = torch.tensor([28.0, 8, -3, 7, -1, 1, 18, 12], dtype=torch.float64)
ERROR = torch.tensor([15.0, 10, 16, 11, 9, 11, 10, 18], dtype=torch.float64)


def log_density(v):
    effects = v["mu"][:, None] + v["tau"][:, None] * v["eta"]
    prior = -0.5 * (v["mu"] / 5) ** 2 - torch.log1p((v["tau"] / 5) ** 2) - 0.5 * v["eta"].square().sum(-1)
    return prior - 0.5 * ((EFFECT - effects) / ERROR).square().sum(-1)


torch.manual_seed(0)
parameters = Parameters(mu=real(), tau=positive(), eta=real(8))
fit = fit_to_target(None, log_density, parameters=parameters, max_steps=250, seed=0, progress="silent")
print(fit)


# %%
# A second target that no small flow covers in so few steps: a funnel whose neck is infinitely thin. It is reported, not hidden.
def funnel(v):
    return -0.5 * (v[:, 0] / 3) ** 2 - 0.5 * (v[:, 1:].square() * torch.exp(-v[:, :1]) + v[:, :1]).sum(-1)


with warnings.catch_warnings(record=True, action="always") as said:
    bad = fit_to_target(10, funnel, max_steps=20, seed=0, progress="silent")
print(bad, *(str(w.message) for w in said), sep="\n")

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
draws = fit.resample(2000, seed=0)
pf.plot.samples(
    torch.stack([draws["mu"], draws["tau"].log()], 1), ax=left, names=("mean effect mu", "log spread tau"), size=3
)
left.set_title("eight schools: draws of the posterior")
for found, color, name in ((fit, "#0072B2", "eight schools"), (bad, "#D55E00", "funnel")):
    ratios = found.weights.log_ratios
    weights = (ratios - ratios.max()).exp().sort(descending=True).values
    share = (weights / weights.sum())[:1000]
    right.loglog(range(1, 1001), share, color=color, label=f"{name}: k-hat {found.k_hat:.2f}, {len(ratios):,} draws")
right.set(xlabel="rank of the draw", ylabel="share of the total weight", title="largest importance weights")
right.legend(frameon=False, loc="upper right")
plt.show()
