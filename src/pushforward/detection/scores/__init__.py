"""Out-of-distribution scores, one a file: higher is more anomalous."""

from pushforward.detection.scores.core import Need, Score, Statistic
from pushforward.detection.scores.input_gradient import InputGradientNorm
from pushforward.detection.scores.likelihood import Likelihood

__all__ = [
    "InputGradientNorm",
    "Likelihood",
    "Need",
    "Score",
    "Statistic",
]
