"""Out-of-distribution scores, one a file: higher is more anomalous."""

from pushforward.detection.scores.core import Need, Score, Statistic
from pushforward.detection.scores.input_gradient import InputGradientNorm
from pushforward.detection.scores.likelihood import Likelihood
from pushforward.detection.scores.likelihood_regret import LikelihoodRegret
from pushforward.detection.scores.local_dimension import DualThreshold, LocalDimension, local_pca_dimension
from pushforward.detection.scores.parameter_gradients import FisherScore, LayerGradients, ParameterGradients
from pushforward.detection.scores.score_typicality import ScoreTypicality

__all__ = [
    "DualThreshold",
    "FisherScore",
    "InputGradientNorm",
    "LayerGradients",
    "Likelihood",
    "LikelihoodRegret",
    "LocalDimension",
    "Need",
    "ParameterGradients",
    "Score",
    "ScoreTypicality",
    "Statistic",
    "local_pca_dimension",
]
