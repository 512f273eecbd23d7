"""Out-of-distribution scores, one a file: higher is more anomalous."""

from pushforward.detection.scores.code_length import CodeLength
from pushforward.detection.scores.complexity import InputComplexity
from pushforward.detection.scores.core import Need, Score, Statistic
from pushforward.detection.scores.dependence import LatentDependence
from pushforward.detection.scores.dose import DoSE
from pushforward.detection.scores.ensemble import (
    WAIC,
    Disagreement,
    EnsembleEntropy,
    EnsembleLikelihood,
    EnsembleScore,
    EnsembleStd,
    EnsembleTypicality,
)
from pushforward.detection.scores.general_ratio import GeneralModelRatio
from pushforward.detection.scores.hierarchy import HierarchicalRatio
from pushforward.detection.scores.latent_norm import LatentNorm
from pushforward.detection.scores.likelihood import Likelihood
from pushforward.detection.scores.log import Log
from pushforward.detection.scores.mahalanobis import LatentMahalanobis
from pushforward.detection.scores.neighbours import LatentNeighbours, Neighbours
from pushforward.detection.scores.path import LikelihoodPath
from pushforward.detection.scores.principal import PrincipalDistances
from pushforward.detection.scores.ratio import LikelihoodRatio, mutate
from pushforward.detection.scores.sides import TwoSided
from pushforward.detection.scores.trivial import Brightness, Variance
from pushforward.detection.scores.typicality import Typicality

__all__ = [
    "WAIC",
    "Brightness",
    "CodeLength",
    "Disagreement",
    "DoSE",
    "EnsembleEntropy",
    "EnsembleLikelihood",
    "EnsembleScore",
    "EnsembleStd",
    "EnsembleTypicality",
    "GeneralModelRatio",
    "HierarchicalRatio",
    "InputComplexity",
    "LatentDependence",
    "LatentMahalanobis",
    "LatentNeighbours",
    "LatentNorm",
    "Likelihood",
    "LikelihoodPath",
    "LikelihoodRatio",
    "Log",
    "Need",
    "Neighbours",
    "PrincipalDistances",
    "Score",
    "Statistic",
    "TwoSided",
    "Typicality",
    "Variance",
    "mutate",
]
