"""Everything between data and base: bijections, surjections, dequantisation, and the ways to combine them."""

from pushforward.maps.adapters import MapTransform, TorchTransform, from_torch, to_torch
from pushforward.maps.affine import Affine
from pushforward.maps.autoregressive import MaskedAutoregressive
from pushforward.maps.cast import Cast
from pushforward.maps.conv1x1 import InvertibleConv1x1
from pushforward.maps.conv2d import InvertibleConv2d
from pushforward.maps.core import Chain, Inverse, Map, Step
from pushforward.maps.coupling import Coupling
from pushforward.maps.dequantise import LatticeDequantize, UniformDequantize
from pushforward.maps.elementwise import Elementwise, Exp, Logit, Sigmoid, Softplus, SoftTail, Tanh
from pushforward.maps.image_coupling import ImageCoupling
from pushforward.maps.jitter import Jitter
from pushforward.maps.linear import Householder, LULinear
from pushforward.maps.missing import AugmentMissing
from pushforward.maps.monotone import Monotone
from pushforward.maps.multiscale import FactorOut
from pushforward.maps.normalization import ActNorm, BatchNorm
from pushforward.maps.permutation import Permutation, Reverse
from pushforward.maps.planar import Planar
from pushforward.maps.radial import Radial
from pushforward.maps.splines import CircularSplineTransformer, SplineTransformer
from pushforward.maps.squeeze import Flatten, Squeeze
from pushforward.maps.standardize import Standardize
from pushforward.maps.sylvester import Sylvester
from pushforward.maps.transformers import AdditiveTransformer, AffineTransformer, GatedTransformer, Transformer
from pushforward.maps.variational import VariationalDequantize

__all__ = [
    "ActNorm",
    "AdditiveTransformer",
    "Affine",
    "AffineTransformer",
    "AugmentMissing",
    "BatchNorm",
    "Cast",
    "Chain",
    "CircularSplineTransformer",
    "Coupling",
    "Elementwise",
    "Exp",
    "FactorOut",
    "Flatten",
    "GatedTransformer",
    "Householder",
    "ImageCoupling",
    "Inverse",
    "InvertibleConv1x1",
    "InvertibleConv2d",
    "Jitter",
    "LULinear",
    "LatticeDequantize",
    "Logit",
    "Map",
    "MapTransform",
    "MaskedAutoregressive",
    "Monotone",
    "Permutation",
    "Planar",
    "Radial",
    "Reverse",
    "Sigmoid",
    "SoftTail",
    "Softplus",
    "SplineTransformer",
    "Squeeze",
    "Standardize",
    "Step",
    "Sylvester",
    "Tanh",
    "TorchTransform",
    "Transformer",
    "UniformDequantize",
    "VariationalDequantize",
    "from_torch",
    "to_torch",
]
