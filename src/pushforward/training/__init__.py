"""Training: `fit` and its `TrainingConfig`, ensembles, and samples of the weights (`bayes`)."""

from pushforward.training import bayes
from pushforward.training.config import TrainingConfig, TrainingOptions
from pushforward.training.ensemble import fit_members
from pushforward.training.fit import fit
from pushforward.training.result import FitResult, TrainingEvent
from pushforward.training.two_step import TwoStepResult, fit_two_step

__all__ = [
    "FitResult",
    "TrainingConfig",
    "TrainingEvent",
    "TrainingOptions",
    "TwoStepResult",
    "bayes",
    "fit",
    "fit_members",
    "fit_two_step",
]
