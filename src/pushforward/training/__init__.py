"""Training: `fit`, with early stopping, best weights, and runs that survive being killed; `bayes`, samples of the weights."""

from pushforward.training import bayes
from pushforward.training.ensemble import fit_members
from pushforward.training.fit import fit
from pushforward.training.result import FitResult, TrainingEvent
from pushforward.training.two_step import TwoStepResult, fit_two_step

__all__ = ["FitResult", "TrainingEvent", "TwoStepResult", "bayes", "fit", "fit_members", "fit_two_step"]
