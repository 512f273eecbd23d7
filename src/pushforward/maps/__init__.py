"""Everything between data and base: bijections, surjections, dequantisation, and the ways to combine them."""

from pushforward.maps.adapters import MapTransform, TorchTransform, from_torch, to_torch
from pushforward.maps.affine import Affine
from pushforward.maps.autoregressive import MaskedAutoregressive
from pushforward.maps.binarize import DynamicBinarize
from pushforward.maps.cast import Cast
from pushforward.maps.core import Chain, Inverse, Map, Step
from pushforward.maps.coupling import Coupling
from pushforward.maps.dequantise import LatticeDequantize, UniformDequantize
from pushforward.maps.elementwise import Elementwise, Exp, Logit, Sigmoid, Softplus, SoftTail, Tanh
from pushforward.maps.integers import Integers
from pushforward.maps.jitter import Jitter
from pushforward.maps.likelihoods import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    GaussianLikelihood,
    Likelihood,
)
from pushforward.maps.linear import Householder, LULinear
from pushforward.maps.logistic_likelihood import LogisticLikelihood
from pushforward.maps.missing import AugmentMissing
from pushforward.maps.monotone import Monotone
from pushforward.maps.normalization import ActNorm, BatchNorm
from pushforward.maps.patches import Patches, TokenAutoregressive
from pushforward.maps.permutation import Permutation, Reverse
from pushforward.maps.planar import Planar
from pushforward.maps.radial import Radial
from pushforward.maps.splines import CircularSplineTransformer, SplineTransformer
from pushforward.maps.standardize import Standardize
from pushforward.maps.stochastic import Variational
from pushforward.maps.sylvester import Sylvester
from pushforward.maps.transformers import AdditiveTransformer, AffineTransformer, GatedTransformer, Transformer

__all__ = [
    "ActNorm",
    "AdditiveTransformer",
    "Affine",
    "AffineTransformer",
    "AugmentMissing",
    "BatchNorm",
    "BernoulliLikelihood",
    "Cast",
    "CategoricalLikelihood",
    "Chain",
    "CircularSplineTransformer",
    "Coupling",
    "DynamicBinarize",
    "Elementwise",
    "Exp",
    "GatedTransformer",
    "GaussianLikelihood",
    "Householder",
    "Integers",
    "Inverse",
    "Jitter",
    "LULinear",
    "LatticeDequantize",
    "Likelihood",
    "LogisticLikelihood",
    "Logit",
    "Map",
    "MapTransform",
    "MaskedAutoregressive",
    "Monotone",
    "Patches",
    "Permutation",
    "Planar",
    "Radial",
    "Reverse",
    "Sigmoid",
    "SoftTail",
    "Softplus",
    "SplineTransformer",
    "Standardize",
    "Step",
    "Sylvester",
    "Tanh",
    "TokenAutoregressive",
    "TorchTransform",
    "Transformer",
    "UniformDequantize",
    "Variational",
    "from_torch",
    "to_torch",
]
