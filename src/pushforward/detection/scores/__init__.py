"""Out-of-distribution scores, one a file: higher is more anomalous."""

from pushforward.detection.scores.core import Need, Score, Statistic
from pushforward.detection.scores.likelihood import Likelihood
from pushforward.detection.scores.manifold import OnManifold

__all__ = [
    "Likelihood",
    "Need",
    "OnManifold",
    "Score",
    "Statistic",
]
