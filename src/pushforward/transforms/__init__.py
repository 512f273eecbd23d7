"""Transforms between data and base distribution: bijections, surjections, embeddings, dequantization, and their combinations."""

from pushforward.transforms.adapters import AsTorchTransform, TorchTransform, from_torch, to_torch
from pushforward.transforms.autoregressive.block import BlockAutoregressive
from pushforward.transforms.autoregressive.masked import MaskedAutoregressive
from pushforward.transforms.autoregressive.tokens import TokenAutoregressive
from pushforward.transforms.base import Step, Transform
from pushforward.transforms.chain import Chain
from pushforward.transforms.constraints.blocks import Blocks
from pushforward.transforms.constraints.correlation import PartialCorrelations
from pushforward.transforms.constraints.simplex import StickBreaking
from pushforward.transforms.continuous.continuous import Continuous
from pushforward.transforms.coupling.autoencode import Autoencode, LinearAutoencode
from pushforward.transforms.coupling.coupling import Coupling
from pushforward.transforms.coupling.image import ImageCoupling
from pushforward.transforms.discrete.binarize import DynamicBinarize
from pushforward.transforms.discrete.dequantize import LatticeDequantize, UniformDequantize, VariationalDequantize
from pushforward.transforms.discrete.integers import Integers
from pushforward.transforms.discrete.modulo import ModuloAutoregressive, ModuloCoupling, OneHot
from pushforward.transforms.elementwise.affine import Affine
from pushforward.transforms.elementwise.bounds import Bounds
from pushforward.transforms.elementwise.cast import Cast
from pushforward.transforms.elementwise.functions import Elementwise, Exp, Logit, Sigmoid, Softplus, SoftTail, Tanh
from pushforward.transforms.elementwise.gaussianize import Gaussianize
from pushforward.transforms.elementwise.monotone import Monotone
from pushforward.transforms.elementwise.normalization import ActNorm, BatchNorm, Standardize
from pushforward.transforms.elementwise.probit import Probit
from pushforward.transforms.embed_context import EmbedContext
from pushforward.transforms.embeddings.conformal import (
    ConformalEmbedding,
    ConformalScale,
    Inversion,
    PiecewiseOrthogonal,
    SpecialConformal,
)
from pushforward.transforms.embeddings.embedding import Embedding, OrthogonalEmbedding, Pad
from pushforward.transforms.embeddings.injective import FreeFormEmbedding, Injective
from pushforward.transforms.image.convolution import InvertibleConv1x1, InvertibleConv2d
from pushforward.transforms.image.multiscale import FactorOut
from pushforward.transforms.image.reshape import Flatten, Patches, Squeeze
from pushforward.transforms.inverse import Inverse
from pushforward.transforms.linear.factored import Householder, LULinear, QRLinear, WoodburyLinear
from pushforward.transforms.linear.permutation import Permutation, Reverse
from pushforward.transforms.linear.regression import Regression
from pushforward.transforms.linear.whiten import Whiten
from pushforward.transforms.residual.contractive import InvertibleResidual
from pushforward.transforms.residual.determinant_lemma import Planar, Radial, Sylvester
from pushforward.transforms.sphere import SphereAutoregressive, SphereCoupling
from pushforward.transforms.splines.polynomial import (
    CubicSplineTransformer,
    LinearSplineTransformer,
    QuadraticSplineTransformer,
)
from pushforward.transforms.splines.rational_quadratic import CircularSplineTransformer, SplineTransformer
from pushforward.transforms.stochastic.discrete_likelihoods import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    LogisticLikelihood,
)
from pushforward.transforms.stochastic.gaussian_likelihoods import GaussianLikelihood, GaussianMixtureLikelihood
from pushforward.transforms.stochastic.jitter import Jitter
from pushforward.transforms.stochastic.likelihoods import Likelihood
from pushforward.transforms.stochastic.variational import Variational
from pushforward.transforms.surjections.funnel import ConvFunnel, Funnel, ImageFunnel
from pushforward.transforms.surjections.max_pool import Max, MaxPool
from pushforward.transforms.surjections.missing import AugmentMissing
from pushforward.transforms.surjections.slice import Augment, Slice
from pushforward.transforms.surjections.symmetry import Abs, Gaps, Sort, StochasticPermutation
from pushforward.transforms.transformers.affine import (
    AdditiveTransformer,
    AffineTransformer,
    GatedAffineTransformer,
    GatedTransformer,
)
from pushforward.transforms.transformers.base import Transformer
from pushforward.transforms.transformers.bernstein import BernsteinTransformer
from pushforward.transforms.transformers.mobius import MobiusTransformer
from pushforward.transforms.transformers.sigmoidal import MixtureCDFTransformer, SigmoidalTransformer
from pushforward.transforms.transformers.sum_of_squares import SumOfSquaresTransformer
from pushforward.transforms.transformers.unconstrained_monotone import UnconstrainedMonotoneTransformer

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
    "Blocks",
    "Bounds",
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
    "EmbedContext",
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
    "PartialCorrelations",
    "Patches",
    "Permutation",
    "PiecewiseOrthogonal",
    "Planar",
    "Probit",
    "QRLinear",
    "QuadraticSplineTransformer",
    "Radial",
    "Regression",
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
    "StickBreaking",
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
