"""Fit a flow to a log-density, and see whether to trust it: a hierarchical model of eight schools.

python examples/inference_log_density.py        # about half a minute; writes inference_log_density.png
"""

import torch
from matplotlib.figure import Figure

import pushforward as pf
from pushforward.inference import Parameters, positive, real

EFFECT = torch.tensor([28.0, 8, -3, 7, -1, 1, 18, 12], dtype=torch.float64)
ERROR = torch.tensor([15.0, 10, 16, 11, 9, 11, 10, 18], dtype=torch.float64)


def log_density(v):
    effects = v["mu"][:, None] + v["tau"][:, None] * v["eta"]
    prior = -0.5 * (v["mu"] / 5) ** 2 - torch.log1p((v["tau"] / 5) ** 2) - 0.5 * v["eta"].square().sum(-1)
    return prior - 0.5 * ((EFFECT - effects) / ERROR).square().sum(-1)


fit = pf.inference.fit_to_target(
    None, log_density, parameters=Parameters(mu=real(), tau=positive(), eta=real(8)), max_steps=400
)
print(fit)  # k-hat, effective sample size, evidence with its error
draws = fit.resample(2000)
figure = Figure()
axes = figure.subplots()
axes.plot(draws["mu"], draws["tau"], ".", markersize=2)
axes.set(xlabel="mu", ylabel="tau", title=f"eight schools: k-hat {fit.k_hat:.2f}, ESS {fit.ess:.0f} of 10,000")
figure.savefig("inference_log_density.png")
