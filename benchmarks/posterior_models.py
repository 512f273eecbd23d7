"""Log-densities of models of posteriordb, written in torch from the mathematics of the models.

Each model gives its parameters with their constraints, the log-density of the constrained parameters, and the columns of the
reference draws as functions of the parameters.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pushforward.errors import StorageError
from pushforward.inference import Parameters, interval, ordered, positive, real, simplex

__all__ = ["POSTERIORS", "Posterior", "load_posterior", "reference_draws"]

Values = dict[str, Tensor]
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True)
class Posterior:
    """A model with its data.

    Attributes:
        parameters: names and constraints.
        log_density: of the constrained parameters, nats, up to a constant.
        columns: the columns of the reference draws, ``(n, k)``, from the parameters.
    """

    parameters: Parameters
    log_density: Callable[[Values], Tensor]
    columns: Callable[[Values], Tensor]


def normal(x: Tensor, mean: Any, std: Any) -> Tensor:
    log_std = std.log() if isinstance(std, Tensor) else math.log(std)
    return -0.5 * ((x - mean) / std).square() - log_std - HALF_LOG_2PI


def cauchy(x: Tensor, scale: float) -> Tensor:
    return -torch.log1p((x / scale).square())


def student(x: Tensor, df: float, mean: float, scale: float) -> Tensor:
    return -(df + 1) / 2 * torch.log1p(((x - mean) / scale).square() / df)


def lognormal(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return normal(x.log(), mean, std) - x.log()


def _stack(*parts: Tensor) -> Tensor:
    return torch.cat([part if part.dim() == 2 else part[:, None] for part in parts], -1)


def _regression(y: Tensor, x: Tensor, prior: Callable[[Values], Tensor] | None = None) -> Posterior:
    """y ~ normal(x beta, sigma), with flat priors unless given."""
    gram, cross, squares = x.T @ x, x.T @ y, y @ y

    def log_density(v: Values) -> Tensor:
        beta, sigma = v["beta"], v["sigma"]
        residual = squares - 2 * beta @ cross + ((beta @ gram) * beta).sum(-1)
        value = -0.5 * residual / sigma.square() - len(y) * sigma.log()
        return value if prior is None else value + prior(v)

    return Posterior(
        Parameters(beta=real(x.shape[1]), sigma=positive()), log_density, lambda v: _stack(v["beta"], v["sigma"])
    )


def _design(*columns: Any) -> Tensor:
    count = max(len(column) for column in columns if isinstance(column, Tensor))
    return torch.stack(
        [c if isinstance(c, Tensor) else torch.full((count,), float(c), dtype=torch.float64) for c in columns], 1
    )


def arK(d: dict[str, Any]) -> Posterior:
    y, k = d["y"], int(d["K"])
    x = _design(1.0, *(y[k - lag - 1 : len(y) - lag - 1] for lag in range(k)))
    inner = _regression(y[k:], x)

    def log_density(v: Values) -> Tensor:
        beta = torch.cat((v["alpha"][:, None], v["beta"]), -1)
        value = inner.log_density({"beta": beta, "sigma": v["sigma"]})
        return value + normal(beta, 0.0, 10.0).sum(-1) + cauchy(v["sigma"], 2.5)

    return Posterior(
        Parameters(alpha=real(), beta=real(k), sigma=positive()), log_density,
        lambda v: _stack(v["alpha"], v["beta"], v["sigma"]),
    )  # fmt: skip


def arma11(d: dict[str, Any]) -> Posterior:
    y = d["y"]

    def log_density(v: Values) -> Tensor:
        mu, phi, theta, sigma = v["mu"], v["phi"], v["theta"], v["sigma"]
        errors = [y[0] - mu - phi * mu]
        for t in range(1, len(y)):
            errors.append(y[t] - mu - phi * y[t - 1] - theta * errors[-1])
        likelihood = normal(torch.stack(errors, -1), 0.0, sigma[:, None]).sum(-1)
        return likelihood + normal(mu, 0.0, 10.0) + normal(phi, 0.0, 2.0) + normal(theta, 0.0, 2.0) + cauchy(sigma, 2.5)

    return Posterior(
        Parameters(mu=real(), phi=real(), theta=real(), sigma=positive()), log_density,
        lambda v: _stack(v["mu"], v["phi"], v["theta"], v["sigma"]),
    )  # fmt: skip


def diamonds(d: dict[str, Any]) -> Posterior:
    x = d["X"][:, 1:]
    centered = x - x.mean(0)
    inner = _regression(d["Y"], torch.cat((torch.ones(len(x), 1, dtype=torch.float64), centered), 1))

    def log_density(v: Values) -> Tensor:
        beta = torch.cat((v["intercept"][:, None], v["b"]), -1)
        value = inner.log_density({"beta": beta, "sigma": v["sigma"]})
        prior = (
            normal(v["b"], 0.0, 1.0).sum(-1)
            + student(v["intercept"], 3.0, 8.0, 10.0)
            + student(v["sigma"], 3.0, 0.0, 10.0)
        )
        return value + prior

    return Posterior(
        Parameters(b=real(x.shape[1]), intercept=real(), sigma=positive()), log_density,
        lambda v: _stack(v["b"], v["intercept"], v["sigma"]),
    )  # fmt: skip


def logearn_height_male(d: dict[str, Any]) -> Posterior:
    return _regression(d["earn"].log(), _design(1.0, d["height"], d["male"]))


def eight_schools_noncentered(d: dict[str, Any]) -> Posterior:
    y, sigma = d["y"], d["sigma"]

    def theta(v: Values) -> Tensor:
        return v["theta_trans"] * v["tau"][:, None] + v["mu"][:, None]

    def log_density(v: Values) -> Tensor:
        value = normal(v["theta_trans"], 0.0, 1.0).sum(-1) + normal(y, theta(v), sigma).sum(-1)
        return value + normal(v["mu"], 0.0, 5.0) + cauchy(v["tau"], 5.0)

    return Posterior(
        Parameters(theta_trans=real(len(y)), mu=real(), tau=positive()), log_density,
        lambda v: _stack(theta(v), v["mu"], v["tau"]),
    )  # fmt: skip


def garch11(d: dict[str, Any]) -> Posterior:
    y = d["y"]

    def log_density(v: Values) -> Tensor:
        mu, alpha0, alpha1, beta1 = v["mu"], v["alpha0"], v["shares"][:, 0], v["shares"][:, 1]
        variances = [torch.full_like(mu, float(d["sigma1"]) ** 2)]
        for t in range(1, len(y)):
            variances.append(alpha0 + alpha1 * (y[t - 1] - mu).square() + beta1 * variances[-1])
        variance = torch.stack(variances, -1)
        return (-0.5 * (y - mu[:, None]).square() / variance - 0.5 * variance.log()).sum(-1)

    # alpha1 and beta1 are positive with a sum below 1: the first two numbers of a simplex.
    return Posterior(
        Parameters(mu=real(), alpha0=positive(), shares=simplex(3)), log_density,
        lambda v: _stack(v["mu"], v["alpha0"], v["shares"][:, :2]),
    )  # fmt: skip


def _gp_covariance(x: Tensor, alpha: Tensor, rho: Tensor, diagonal: Any) -> Tensor:
    distance = (x[:, None] - x).square()
    covariance = alpha[:, None, None].square() * torch.exp(-0.5 * distance / rho[:, None, None].square())
    return covariance + diagonal * torch.eye(len(x), dtype=x.dtype)


def _gp_prior(v: Values) -> Tensor:
    return 24 * v["rho"].log() - 4 * v["rho"] + normal(v["alpha"], 0.0, 2.0)


def gp_pois_regr(d: dict[str, Any]) -> Posterior:
    x, k = d["x"], d["k"]

    def f(v: Values) -> Tensor:
        factor = torch.linalg.cholesky_ex(_gp_covariance(x, v["alpha"], v["rho"], 1e-10))[0]
        return (factor @ v["f_tilde"][..., None])[..., 0]

    def log_density(v: Values) -> Tensor:
        rate = f(v)
        return _gp_prior(v) + normal(v["f_tilde"], 0.0, 1.0).sum(-1) + (k * rate - rate.exp()).sum(-1)

    return Posterior(
        Parameters(rho=positive(), alpha=positive(), f_tilde=real(len(x))), log_density,
        lambda v: _stack(v["rho"], v["alpha"], f(v)),
    )  # fmt: skip


def gp_regr(d: dict[str, Any]) -> Posterior:
    x, y = d["x"], d["y"]

    def log_density(v: Values) -> Tensor:
        factor, info = torch.linalg.cholesky_ex(_gp_covariance(x, v["alpha"], v["rho"], v["sigma"][:, None, None]))
        solved = torch.linalg.solve_triangular(factor, y[:, None].expand(len(factor), -1, 1), upper=False)[..., 0]
        value = -0.5 * solved.square().sum(-1) - torch.diagonal(factor, dim1=-2, dim2=-1).log().sum(-1)
        return torch.where(info == 0, value, -math.inf) + _gp_prior(v) + normal(v["sigma"], 0.0, 1.0)

    return Posterior(
        Parameters(rho=positive(), alpha=positive(), sigma=positive()), log_density,
        lambda v: _stack(v["rho"], v["alpha"], v["sigma"]),
    )  # fmt: skip


def hmm_example(d: dict[str, Any]) -> Posterior:
    y = d["y"]

    def mu(v: Values) -> Tensor:
        return torch.stack((v["first"], v["first"] + v["gap"]), -1)

    def log_density(v: Values) -> Tensor:
        means = mu(v)
        emission = normal(y[:, None, None], means, 1.0)  # (T, n, 2)
        transition = torch.stack((v["theta1"], v["theta2"]), 1).log()  # (n, from, to)
        forward = emission[0]
        for t in range(1, len(y)):
            forward = torch.logsumexp(forward[:, :, None] + transition, 1) + emission[t]
        return torch.logsumexp(forward, -1) + normal(means[:, 0], 3.0, 1.0) + normal(means[:, 1], 10.0, 1.0)

    return Posterior(
        Parameters(theta1=simplex(2), theta2=simplex(2), first=positive(), gap=positive()), log_density,
        lambda v: _stack(v["theta1"], v["theta2"], mu(v)),
    )  # fmt: skip


def lotka_volterra(d: dict[str, Any], substeps: int = 8) -> Posterior:
    times, y, first = d["ts"], d["y"], d["y_init"]

    def slope(log_z: Tensor, theta: Tensor) -> Tensor:
        u, w = log_z.unbind(-1)
        alpha, beta, gamma, delta = theta.unbind(-1)
        return torch.stack((alpha - beta * w.exp(), delta * u.exp() - gamma), -1)

    def log_density(v: Values) -> Tensor:
        theta, sigma = v["theta"], v["sigma"]
        state, now, path = v["z_init"].log(), 0.0, []
        for time in times.tolist():
            step = (time - now) / substeps
            for _ in range(substeps):
                k1 = slope(state, theta)
                k2 = slope(state + step / 2 * k1, theta)
                k3 = slope(state + step / 2 * k2, theta)
                k4 = slope(state + step * k3, theta)
                state = state + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
            now = time
            path.append(state)
        fit = lognormal(y, torch.stack(path, 1), sigma[:, None, :]).sum((-1, -2))
        start = lognormal(first, v["z_init"].log(), sigma).sum(-1)
        prior = normal(theta[:, [0, 2]], 1.0, 0.5).sum(-1) + normal(theta[:, [1, 3]], 0.05, 0.05).sum(-1)
        prior = prior + (normal(sigma.log(), -1.0, 1.0) - sigma.log()).sum(-1)
        prior = prior + (normal(v["z_init"].log(), math.log(10.0), 1.0) - v["z_init"].log()).sum(-1)
        return fit + start + prior

    return Posterior(
        Parameters(theta=positive(4), z_init=positive(2), sigma=positive(2)), log_density,
        lambda v: _stack(v["theta"], v["z_init"], v["sigma"]),
    )  # fmt: skip


def kidscore_momiq(d: dict[str, Any]) -> Posterior:
    return _regression(d["kid_score"], _design(1.0, d["mom_iq"]), lambda v: cauchy(v["sigma"], 2.5))


def kidscore_interaction_c(d: dict[str, Any]) -> Posterior:
    hs, iq = d["mom_hs"] - d["mom_hs"].mean(), d["mom_iq"] - d["mom_iq"].mean()
    return _regression(d["kid_score"], _design(1.0, hs, iq, hs * iq))


def kilpisjarvi(d: dict[str, Any]) -> Posterior:
    inner = _regression(d["y"], _design(1.0, d["x"]))

    def log_density(v: Values) -> Tensor:
        beta = torch.stack((v["alpha"], v["beta"]), -1)
        value = inner.log_density({"beta": beta, "sigma": v["sigma"]})
        return value + normal(v["alpha"], d["pmualpha"], d["psalpha"]) + normal(v["beta"], d["pmubeta"], d["psbeta"])

    return Posterior(
        Parameters(alpha=real(), beta=real(), sigma=positive()), log_density,
        lambda v: _stack(v["alpha"], v["beta"], v["sigma"]),
    )  # fmt: skip


def low_dim_gauss_mix(d: dict[str, Any]) -> Posterior:
    y = d["y"]

    def log_density(v: Values) -> Tensor:
        mu, sigma, theta = v["mu"], v["sigma"], v["theta"]
        parts = normal(y[:, None, None], mu, sigma)
        first, second = parts[..., 0] + theta.log(), parts[..., 1] + torch.log1p(-theta)
        prior = (
            normal(sigma, 0.0, 2.0).sum(-1) + normal(mu, 0.0, 2.0).sum(-1) + 4 * theta.log() + 4 * torch.log1p(-theta)
        )
        return torch.logaddexp(first, second).sum(0) + prior

    return Posterior(
        Parameters(mu=ordered(2), sigma=positive(2), theta=interval(0.0, 1.0)), log_density,
        lambda v: _stack(v["mu"], v["sigma"], v["theta"]),
    )  # fmt: skip


def logmesquite_logvash(d: dict[str, Any]) -> Posterior:
    volume = (d["diam1"] * d["diam2"] * d["canopy_height"]).log()
    area, form = (d["diam1"] * d["diam2"]).log(), (d["diam1"] / d["diam2"]).log()
    return _regression(d["weight"].log(), _design(1.0, volume, area, form, d["total_height"].log(), d["group"]))


def nes(d: dict[str, Any]) -> Posterior:
    age = d["age_discrete"]
    ages = [(age == level).double() for level in (2, 3, 4)]
    x = _design(1.0, d["real_ideo"], d["race_adj"], *ages, d["educ1"], d["gender"], d["income"])
    return _regression(d["partyid7"], x)


def one_comp_mm_elim_abs(d: dict[str, Any], substeps: int = 16) -> Posterior:
    times, observed, dose, volume = d["times"], d["C_hat"], float(d["D"]), float(d["V"])

    def log_density(v: Values) -> Tensor:
        k_a, k_m, v_m = v["k_a"], v["K_m"], v["V_m"]

        def slope(t: float, c: Tensor) -> Tensor:
            return torch.exp(-k_a * t) * dose * k_a / volume - v_m / volume * c / (k_m + c)

        state, now, path = torch.zeros_like(k_a), float(d["t0"]), []
        for time in times.tolist():
            h = (time - now) / substeps
            for step in range(substeps):
                t = now + step * h
                k1 = slope(t, state)
                k2 = slope(t + h / 2, state + h / 2 * k1)
                k3 = slope(t + h / 2, state + h / 2 * k2)
                k4 = slope(t + h, state + h * k3)
                state = (state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)).clamp(min=1e-12)
            now = time
            path.append(state)
        fit = lognormal(observed, torch.stack(path, -1).log(), v["sigma"][:, None]).sum(-1)
        return fit + sum(cauchy(v[name], 1.0) for name in ("k_a", "K_m", "V_m", "sigma"))

    return Posterior(
        Parameters(k_a=positive(), K_m=positive(), V_m=positive(), sigma=positive()), log_density,
        lambda v: _stack(v["k_a"], v["K_m"], v["V_m"], v["sigma"]),
    )  # fmt: skip


def blr(d: dict[str, Any]) -> Posterior:
    return _regression(d["y"], d["X"], lambda v: normal(v["beta"], 0.0, 10.0).sum(-1) + normal(v["sigma"], 0.0, 10.0))


POSTERIORS: dict[str, Callable[[dict[str, Any]], Posterior]] = {
    "arK-arK": arK,
    "arma-arma11": arma11,
    "diamonds-diamonds": diamonds,
    "earnings-logearn_height_male": logearn_height_male,
    "eight_schools-eight_schools_noncentered": eight_schools_noncentered,
    "garch-garch11": garch11,
    "gp_pois_regr-gp_pois_regr": gp_pois_regr,
    "gp_pois_regr-gp_regr": gp_regr,
    "hmm_example-hmm_example": hmm_example,
    "hudson_lynx_hare-lotka_volterra": lotka_volterra,
    "kidiq-kidscore_momiq": kidscore_momiq,
    "kidiq_with_mom_work-kidscore_interaction_c": kidscore_interaction_c,
    "kilpisjarvi_mod-kilpisjarvi": kilpisjarvi,
    "low_dim_gauss_mix-low_dim_gauss_mix": low_dim_gauss_mix,
    "mesquite-logmesquite_logvash": logmesquite_logvash,
    "nes1980-nes": nes,
    "one_comp_mm_elim_abs-one_comp_mm_elim_abs": one_comp_mm_elim_abs,
    "sblrc-blr": blr,
}
"""The models, by the names of posteriordb."""


def load_posterior(name: str, folder: Path) -> Posterior:
    """A model with its data.

    Raises:
        StorageError: if the data are not there.
    """
    path = folder / "posteriordb" / f"{name}.data.json"
    if not path.exists():
        raise StorageError(f"{path} is not there: posteriordb/NAME.data.json is the data of a posterior.")
    data = json.loads(path.read_text())
    tensors = {
        key: torch.tensor(value, dtype=torch.float64) if isinstance(value, list) else value
        for key, value in data.items()
    }
    return POSTERIORS[name](tensors)


def reference_draws(name: str, folder: Path) -> Tensor:
    """The reference draws, all chains, ``(10000, columns)``, float64."""
    draws = np.load(folder / "posteriordb" / f"{name}.npz", allow_pickle=False)["draws"]
    return torch.from_numpy(draws.reshape(-1, draws.shape[-1]).astype(np.float64))
