"""Training: `fit`, with early stopping, best weights, and runs that survive being killed; `bayes`, samples of the weights."""

from pushforward.training import bayes
from pushforward.training.fit import fit
from pushforward.training.result import FitResult, TrainingEvent

__all__ = ["FitResult", "TrainingEvent", "bayes", "fit"]
