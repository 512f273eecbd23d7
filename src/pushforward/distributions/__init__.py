"""Base distributions, which models transform into the distribution of the data; one family a file."""

from pushforward.distributions.base import Distribution
from pushforward.distributions.categorical import Categorical
from pushforward.distributions.conditional import ConditionalNormal
from pushforward.distributions.half_normal import HalfNormal, SortedNormal
from pushforward.distributions.kernel_density import KernelDensity
from pushforward.distributions.logistic import Logistic
from pushforward.distributions.made_mixture import MADEMixture
from pushforward.distributions.mixture import GaussianMixture
from pushforward.distributions.normal import Normal
from pushforward.distributions.pixelcnn import PixelCNN
from pushforward.distributions.product import Product
from pushforward.distributions.spherical import UniformSphere, VonMisesFisher
from pushforward.distributions.student_t import StudentT
from pushforward.distributions.uniform import Uniform
from pushforward.distributions.von_mises import VonMises

__all__ = [
    "Categorical",
    "ConditionalNormal",
    "Distribution",
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
