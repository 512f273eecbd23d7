"""Inference: flows fitted to unnormalized log-densities, simulation-based inference, and what says when not to trust them."""

from pushforward.inference.auto import infer, posterior_score
from pushforward.inference.calibration import Calibration, ConformalRegion, calibrate, uniformity_p_value
from pushforward.inference.check import PosteriorCheck, check
from pushforward.inference.fit_to_target import default_flow, fit_to_target
from pushforward.inference.iid import IIDPosterior, iid
from pushforward.inference.latent import LatentPosterior, latent_log_density, latent_posterior
from pushforward.inference.mcmc import ChainDraws, independent_metropolis, neutra
from pushforward.inference.misspecification import SimulationGuard, local_c2st, posterior_predictive
from pushforward.inference.modes import Mode, find_modes
from pushforward.inference.nle import NLE, NLEPosterior
from pushforward.inference.npe import NPE, NPEPosterior, conditional_flow
from pushforward.inference.nre import NRE, NREPosterior
from pushforward.inference.parameters import (
    Constraint,
    Parameters,
    correlation,
    interval,
    ordered,
    positive,
    real,
    simplex,
)
from pushforward.inference.posterior import SimulationPosterior, load_posterior
from pushforward.inference.posterior_distribution import PosteriorDistribution
from pushforward.inference.priors import Prior
from pushforward.inference.pyro_target import PyroTarget
from pushforward.inference.result import FoundMode, TargetFit
from pushforward.inference.sbi_estimator import sbi_estimator
from pushforward.inference.sequential import sequential
from pushforward.inference.simulate import Simulations, simulate
from pushforward.inference.summary import Summary, summarize
from pushforward.inference.targets import Target
from pushforward.inference.weights import ImportanceWeights, effective_sample_size, khat_threshold, pareto_smooth

__all__ = [
    "NLE",
    "NPE",
    "NRE",
    "Calibration",
    "ChainDraws",
    "ConformalRegion",
    "Constraint",
    "FoundMode",
    "IIDPosterior",
    "ImportanceWeights",
    "LatentPosterior",
    "Mode",
    "NLEPosterior",
    "NPEPosterior",
    "NREPosterior",
    "Parameters",
    "PosteriorCheck",
    "PosteriorDistribution",
    "Prior",
    "PyroTarget",
    "SimulationGuard",
    "SimulationPosterior",
    "Simulations",
    "Summary",
    "Target",
    "TargetFit",
    "calibrate",
    "check",
    "conditional_flow",
    "correlation",
    "default_flow",
    "effective_sample_size",
    "find_modes",
    "fit_to_target",
    "iid",
    "independent_metropolis",
    "infer",
    "interval",
    "khat_threshold",
    "latent_log_density",
    "latent_posterior",
    "load_posterior",
    "local_c2st",
    "neutra",
    "ordered",
    "pareto_smooth",
    "positive",
    "posterior_predictive",
    "posterior_score",
    "real",
    "sbi_estimator",
    "sequential",
    "simplex",
    "simulate",
    "summarize",
    "uniformity_p_value",
]
