"""Bases: the simple measures that models push forward, one family a file."""

from pushforward.bases.categorical import Categorical
from pushforward.bases.conditional import ConditionalNormal
from pushforward.bases.core import Base
from pushforward.bases.half_normal import HalfNormal, SortedNormal
from pushforward.bases.kernel_density import KernelDensity
from pushforward.bases.logistic import Logistic
from pushforward.bases.made_mixture import MADEMixture
from pushforward.bases.mixture import GaussianMixture
from pushforward.bases.normal import Normal
from pushforward.bases.pixelcnn import PixelCNN
from pushforward.bases.product import Product
from pushforward.bases.spherical import UniformSphere, VonMisesFisher
from pushforward.bases.student_t import StudentT
from pushforward.bases.uniform import Uniform
from pushforward.bases.von_mises import VonMises

__all__ = [
    "Base",
    "Categorical",
    "ConditionalNormal",
    "GaussianMixture",
    "HalfNormal",
    "KernelDensity",
    "Logistic",
    "MADEMixture",
    "Normal",
    "PixelCNN",
    "Product",
    "SortedNormal",
    "StudentT",
    "Uniform",
    "UniformSphere",
    "VonMises",
    "VonMisesFisher",
]
