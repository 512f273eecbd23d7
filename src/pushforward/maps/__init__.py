"""Everything between data and base: bijections, surjections, dequantisation, and the ways to combine them."""

from pushforward.maps.absolute import Abs
from pushforward.maps.adapters import MapTransform, TorchTransform, from_torch, to_torch
from pushforward.maps.affine import Affine
from pushforward.maps.autoencode import Autoencode
from pushforward.maps.autoregressive import MaskedAutoregressive
from pushforward.maps.bernstein import BernsteinTransformer
from pushforward.maps.binarize import DynamicBinarize
from pushforward.maps.block import BlockAutoregressive
from pushforward.maps.cast import Cast
from pushforward.maps.conformal import ConformalEmbedding, ConformalScale, Inversion, SpecialConformal
from pushforward.maps.continuous import Continuous
from pushforward.maps.conv1x1 import InvertibleConv1x1
from pushforward.maps.conv2d import InvertibleConv2d
from pushforward.maps.core import Chain, Inverse, Map, Step
from pushforward.maps.coupling import Coupling
from pushforward.maps.dequantise import LatticeDequantize, UniformDequantize
from pushforward.maps.discrete import ModuloAutoregressive, ModuloCoupling, OneHot
from pushforward.maps.elementwise import Elementwise, Exp, Logit, Sigmoid, Softplus, SoftTail, Tanh
from pushforward.maps.embedding import Embedding, OrthogonalEmbedding, Pad
from pushforward.maps.funnel import Funnel
from pushforward.maps.gaussianize import Gaussianize
from pushforward.maps.image_coupling import ImageCoupling
from pushforward.maps.image_funnel import ConvFunnel, ImageFunnel
from pushforward.maps.injective import FreeFormEmbedding, Injective
from pushforward.maps.integers import Integers
from pushforward.maps.jitter import Jitter
from pushforward.maps.likelihoods import BernoulliLikelihood, CategoricalLikelihood, GaussianLikelihood, Likelihood
from pushforward.maps.linear import Householder, LULinear
from pushforward.maps.linear_autoencode import LinearAutoencode
from pushforward.maps.logistic_likelihood import LogisticLikelihood
from pushforward.maps.maxima import Max, MaxPool
from pushforward.maps.missing import AugmentMissing
from pushforward.maps.mixture_likelihood import GaussianMixtureLikelihood
from pushforward.maps.mobius import MobiusTransformer
from pushforward.maps.monotone import Monotone
from pushforward.maps.multiscale import FactorOut
from pushforward.maps.normalization import ActNorm, BatchNorm
from pushforward.maps.patches import Patches, TokenAutoregressive
from pushforward.maps.permutation import Permutation, Reverse
from pushforward.maps.piecewise import PiecewiseOrthogonal
from pushforward.maps.planar import Planar
from pushforward.maps.polynomial_splines import (
    CubicSplineTransformer,
    LinearSplineTransformer,
    QuadraticSplineTransformer,
)
from pushforward.maps.qr import QRLinear
from pushforward.maps.radial import Radial
from pushforward.maps.residual import InvertibleResidual
from pushforward.maps.sigmoidal import MixtureCDFTransformer, SigmoidalTransformer
from pushforward.maps.slice import Augment, Slice
from pushforward.maps.sort import Gaps, Sort, StochasticPermutation
from pushforward.maps.sphere import SphereAutoregressive
from pushforward.maps.sphere_coupling import SphereCoupling
from pushforward.maps.splines import CircularSplineTransformer, SplineTransformer
from pushforward.maps.squeeze import Flatten, Squeeze
from pushforward.maps.standardize import Standardize
from pushforward.maps.stochastic import Variational
from pushforward.maps.sum_of_squares import SumOfSquaresTransformer
from pushforward.maps.switched import SwitchedAffineTransformer
from pushforward.maps.sylvester import Sylvester
from pushforward.maps.transformers import AdditiveTransformer, AffineTransformer, GatedTransformer, Transformer
from pushforward.maps.unconstrained import UnconstrainedMonotoneTransformer
from pushforward.maps.variational import VariationalDequantize
from pushforward.maps.whiten import Whiten
from pushforward.maps.woodbury import WoodburyLinear

__all__ = [
    "Abs",
    "ActNorm",
    "AdditiveTransformer",
    "Affine",
    "AffineTransformer",
    "Augment",
    "AugmentMissing",
    "Autoencode",
    "BatchNorm",
    "BernoulliLikelihood",
    "BernsteinTransformer",
    "BlockAutoregressive",
    "Cast",
    "CategoricalLikelihood",
    "Chain",
    "CircularSplineTransformer",
    "ConformalEmbedding",
    "ConformalScale",
    "Continuous",
    "ConvFunnel",
    "Coupling",
    "CubicSplineTransformer",
    "DynamicBinarize",
    "Elementwise",
    "Embedding",
    "Exp",
    "FactorOut",
    "Flatten",
    "FreeFormEmbedding",
    "Funnel",
    "Gaps",
    "GatedTransformer",
    "GaussianLikelihood",
    "GaussianMixtureLikelihood",
    "Gaussianize",
    "Householder",
    "ImageCoupling",
    "ImageFunnel",
    "Injective",
    "Integers",
    "Inverse",
    "Inversion",
    "InvertibleConv1x1",
    "InvertibleConv2d",
    "InvertibleResidual",
    "Jitter",
    "LULinear",
    "LatticeDequantize",
    "Likelihood",
    "LinearAutoencode",
    "LinearSplineTransformer",
    "LogisticLikelihood",
    "Logit",
    "Map",
    "MapTransform",
    "MaskedAutoregressive",
    "Max",
    "MaxPool",
    "MixtureCDFTransformer",
    "MobiusTransformer",
    "ModuloAutoregressive",
    "ModuloCoupling",
    "Monotone",
    "OneHot",
    "OrthogonalEmbedding",
    "Pad",
    "Patches",
    "Permutation",
    "PiecewiseOrthogonal",
    "Planar",
    "QRLinear",
    "QuadraticSplineTransformer",
    "Radial",
    "Reverse",
    "Sigmoid",
    "SigmoidalTransformer",
    "Slice",
    "SoftTail",
    "Softplus",
    "Sort",
    "SpecialConformal",
    "SphereAutoregressive",
    "SphereCoupling",
    "SplineTransformer",
    "Squeeze",
    "Standardize",
    "Step",
    "StochasticPermutation",
    "SumOfSquaresTransformer",
    "SwitchedAffineTransformer",
    "Sylvester",
    "Tanh",
    "TokenAutoregressive",
    "TorchTransform",
    "Transformer",
    "UnconstrainedMonotoneTransformer",
    "UniformDequantize",
    "Variational",
    "VariationalDequantize",
    "Whiten",
    "WoodburyLinear",
    "from_torch",
    "to_torch",
]
