"""Scores that read a network, one family a file. A higher score is more anomalous."""

from pushforward.detection.network.scores.base import Cost, Need, NetworkScore
from pushforward.detection.network.scores.clipping import ReAct
from pushforward.detection.network.scores.disagreement import DeepEnsemble, MCDropout
from pushforward.detection.network.scores.external import External
from pushforward.detection.network.scores.flow import FeatureFlow
from pushforward.detection.network.scores.gaussian import LayerMahalanobis, Mahalanobis, Mixture, RelativeMahalanobis
from pushforward.detection.network.scores.gradients import ODIN, GradNorm
from pushforward.detection.network.scores.grams import GramMatrices
from pushforward.detection.network.scores.kl_matching import KLMatching
from pushforward.detection.network.scores.layer_neighbors import LayerNeighbors
from pushforward.detection.network.scores.neighbors import Neighbors
from pushforward.detection.network.scores.openmax import OpenMax
from pushforward.detection.network.scores.patterns import SHE
from pushforward.detection.network.scores.relative_layers import LayerRelativeMahalanobis
from pushforward.detection.network.scores.softmax import GEN, Energy, Entropy, MaxLogit, MaxSoftmax
from pushforward.detection.network.scores.subspace import Residual, ViM
from pushforward.detection.network.scores.svdd import DeepSVDD
from pushforward.detection.network.scores.temperature import Temperature

__all__ = [
    "GEN",
    "ODIN",
    "SHE",
    "Cost",
    "DeepEnsemble",
    "DeepSVDD",
    "Energy",
    "Entropy",
    "External",
    "FeatureFlow",
    "GradNorm",
    "GramMatrices",
    "KLMatching",
    "LayerMahalanobis",
    "LayerNeighbors",
    "LayerRelativeMahalanobis",
    "MCDropout",
    "Mahalanobis",
    "MaxLogit",
    "MaxSoftmax",
    "Mixture",
    "Need",
    "Neighbors",
    "NetworkScore",
    "OpenMax",
    "ReAct",
    "RelativeMahalanobis",
    "Residual",
    "Temperature",
    "ViM",
]
