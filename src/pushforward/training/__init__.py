"""Training: `fit`, with early stopping, best weights, and runs that survive being killed."""

from pushforward.training.fit import fit
from pushforward.training.result import FitResult, TrainingEvent
from pushforward.training.two_step import TwoStepResult, fit_two_step

__all__ = ["FitResult", "TrainingEvent", "TwoStepResult", "fit", "fit_two_step"]
