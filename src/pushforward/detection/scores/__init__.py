"""Out-of-distribution scores, one a file: higher is more anomalous."""

from pushforward.detection.scores.core import Need, Score, Statistic
from pushforward.detection.scores.likelihood import Likelihood
from pushforward.detection.scores.on_manifold import DensityAndResidual, Residual

__all__ = [
    "DensityAndResidual",
    "Likelihood",
    "Need",
    "Residual",
    "Score",
    "Statistic",
]
