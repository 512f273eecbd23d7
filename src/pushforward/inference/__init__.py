"""Inference: flows fitted to unnormalized log-densities, simulation-based inference, and what says when not to trust them."""

from pushforward.inference.fit_to_target import default_flow, fit_to_target
from pushforward.inference.modes import Mode, find_modes
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
from pushforward.inference.pyro_target import PyroTarget
from pushforward.inference.result import FoundMode, TargetFit
from pushforward.inference.targets import Target
from pushforward.inference.weights import ImportanceWeights, effective_sample_size, khat_threshold, pareto_smooth

__all__ = [
    "Constraint",
    "FoundMode",
    "ImportanceWeights",
    "Mode",
    "Parameters",
    "PyroTarget",
    "Target",
    "TargetFit",
    "correlation",
    "default_flow",
    "effective_sample_size",
    "find_modes",
    "fit_to_target",
    "interval",
    "khat_threshold",
    "ordered",
    "pareto_smooth",
    "positive",
    "real",
    "simplex",
]
