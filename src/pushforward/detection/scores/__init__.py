"""Out-of-distribution scores, one family in each file. A higher score is more anomalous."""

from pushforward.detection.scores.base import Need, Score, Statistic
from pushforward.detection.scores.baselines import Brightness, Variance
from pushforward.detection.scores.code_length import CodeLength
from pushforward.detection.scores.complexity import InputComplexity
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
from pushforward.detection.scores.input_gradient import InputGradientNorm
from pushforward.detection.scores.latent_norm import LatentNorm
from pushforward.detection.scores.likelihood import Likelihood
from pushforward.detection.scores.likelihood_regret import LikelihoodRegret
from pushforward.detection.scores.local_dimension import DualThreshold, LocalDimension, local_pca_dimension
from pushforward.detection.scores.log import Log
from pushforward.detection.scores.mahalanobis import LatentMahalanobis
from pushforward.detection.scores.manifold_distance import DensityAndDistance, ManifoldDistance
from pushforward.detection.scores.manifold_likelihood import ManifoldLikelihood
from pushforward.detection.scores.neighbors import LatentNeighbors, Neighbors
from pushforward.detection.scores.parameter_gradients import FisherScore, LayerGradients, ParameterGradients
from pushforward.detection.scores.path import LikelihoodPath
from pushforward.detection.scores.principal import PrincipalDistances
from pushforward.detection.scores.ratio import LikelihoodRatio, mutate
from pushforward.detection.scores.score_typicality import ScoreTypicality
from pushforward.detection.scores.surprise_sum import SurpriseSum
from pushforward.detection.scores.transformation import TransformationScore
from pushforward.detection.scores.two_sided import TwoSided
from pushforward.detection.scores.typicality import Typicality

__all__ = [
    "WAIC",
    "Brightness",
    "CodeLength",
    "DensityAndDistance",
    "Disagreement",
    "DoSE",
    "DualThreshold",
    "EnsembleEntropy",
    "EnsembleLikelihood",
    "EnsembleScore",
    "EnsembleStd",
    "EnsembleTypicality",
    "FisherScore",
    "GeneralModelRatio",
    "HierarchicalRatio",
    "InputComplexity",
    "InputGradientNorm",
    "LatentDependence",
    "LatentMahalanobis",
    "LatentNeighbors",
    "LatentNorm",
    "LayerGradients",
    "Likelihood",
    "LikelihoodPath",
    "LikelihoodRatio",
    "LikelihoodRegret",
    "LocalDimension",
    "Log",
    "ManifoldDistance",
    "ManifoldLikelihood",
    "Need",
    "Neighbors",
    "ParameterGradients",
    "PrincipalDistances",
    "Score",
    "ScoreTypicality",
    "Statistic",
    "SurpriseSum",
    "TransformationScore",
    "TwoSided",
    "Typicality",
    "Variance",
    "local_pca_dimension",
    "mutate",
]
