"""Everything between data and base: bijections, surjections, dequantization, and the ways to combine them."""

from pushforward.transforms.adapters import AsTorchTransform, TorchTransform, from_torch, to_torch
from pushforward.transforms.autoregressive.block import BlockAutoregressive
from pushforward.transforms.autoregressive.masked import MaskedAutoregressive
from pushforward.transforms.autoregressive.sphere import SphereAutoregressive
from pushforward.transforms.base import Step, Transform
from pushforward.transforms.chain import Chain
from pushforward.transforms.continuous.continuous import Continuous
from pushforward.transforms.coupling.coupling import Coupling
from pushforward.transforms.coupling.image import ImageCoupling
from pushforward.transforms.coupling.sphere import SphereCoupling
from pushforward.transforms.discrete.binarize import DynamicBinarize
from pushforward.transforms.discrete.dequantize import LatticeDequantize, UniformDequantize
from pushforward.transforms.discrete.integers import Integers
from pushforward.transforms.discrete.modulo import ModuloAutoregressive, ModuloCoupling, OneHot
from pushforward.transforms.discrete.variational_dequantize import VariationalDequantize
from pushforward.transforms.elementwise.affine import Affine
from pushforward.transforms.elementwise.bernstein import BernsteinTransformer
from pushforward.transforms.elementwise.cast import Cast
from pushforward.transforms.elementwise.functions import Elementwise, Exp, Logit, Sigmoid, Softplus, SoftTail, Tanh
from pushforward.transforms.elementwise.gated_affine import GatedAffineTransformer
from pushforward.transforms.elementwise.gaussianize import Gaussianize
from pushforward.transforms.elementwise.mobius import MobiusTransformer
from pushforward.transforms.elementwise.monotone import Monotone
from pushforward.transforms.elementwise.normalization import ActNorm, BatchNorm
from pushforward.transforms.elementwise.sigmoidal import MixtureCDFTransformer, SigmoidalTransformer
from pushforward.transforms.elementwise.standardize import Standardize
from pushforward.transforms.elementwise.sum_of_squares import SumOfSquaresTransformer
from pushforward.transforms.elementwise.transformers import (
    AdditiveTransformer,
    AffineTransformer,
    GatedTransformer,
    Transformer,
)
from pushforward.transforms.elementwise.unconstrained import UnconstrainedMonotoneTransformer
from pushforward.transforms.embeddings.autoencode import Autoencode
from pushforward.transforms.embeddings.conformal import ConformalEmbedding, ConformalScale, Inversion, SpecialConformal
from pushforward.transforms.embeddings.embedding import Embedding, OrthogonalEmbedding, Pad
from pushforward.transforms.embeddings.injective import FreeFormEmbedding, Injective
from pushforward.transforms.embeddings.linear_autoencode import LinearAutoencode
from pushforward.transforms.embeddings.piecewise import PiecewiseOrthogonal
from pushforward.transforms.image.conv1x1 import InvertibleConv1x1
from pushforward.transforms.image.conv2d import InvertibleConv2d
from pushforward.transforms.image.multiscale import FactorOut
from pushforward.transforms.image.patches import Patches, TokenAutoregressive
from pushforward.transforms.image.squeeze import Flatten, Squeeze
from pushforward.transforms.inverse import Inverse
from pushforward.transforms.linear.linear import Householder, LULinear
from pushforward.transforms.linear.permutation import Permutation, Reverse
from pushforward.transforms.linear.qr import QRLinear
from pushforward.transforms.linear.whiten import Whiten
from pushforward.transforms.linear.woodbury import WoodburyLinear
from pushforward.transforms.residual.planar import Planar
from pushforward.transforms.residual.radial import Radial
from pushforward.transforms.residual.residual import InvertibleResidual
from pushforward.transforms.residual.sylvester import Sylvester
from pushforward.transforms.splines.polynomial import (
    CubicSplineTransformer,
    LinearSplineTransformer,
    QuadraticSplineTransformer,
)
from pushforward.transforms.splines.rational_quadratic import CircularSplineTransformer, SplineTransformer
from pushforward.transforms.stochastic.jitter import Jitter
from pushforward.transforms.stochastic.likelihoods import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    GaussianLikelihood,
    Likelihood,
)
from pushforward.transforms.stochastic.logistic_likelihood import LogisticLikelihood
from pushforward.transforms.stochastic.mixture_likelihood import GaussianMixtureLikelihood
from pushforward.transforms.stochastic.variational import Variational
from pushforward.transforms.surjections.absolute import Abs
from pushforward.transforms.surjections.funnel import Funnel
from pushforward.transforms.surjections.image_funnel import ConvFunnel, ImageFunnel
from pushforward.transforms.surjections.max_pool import Max, MaxPool
from pushforward.transforms.surjections.missing import AugmentMissing
from pushforward.transforms.surjections.slice import Augment, Slice
from pushforward.transforms.surjections.sort import Gaps, Sort, StochasticPermutation

__all__ = [
    "Abs",
    "ActNorm",
    "AdditiveTransformer",
    "Affine",
    "AffineTransformer",
    "AsTorchTransform",
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
    "GatedAffineTransformer",
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
    "Sylvester",
    "Tanh",
    "TokenAutoregressive",
    "TorchTransform",
    "Transform",
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
