"""Models: one file for each paper and form, each a chain of transforms over a base distribution."""

import importlib
from types import ModuleType

from pushforward.models.base import Model
from pushforward.models.ensemble import Ensemble
from pushforward.models.flow import Flow
from pushforward.models.image.flowpp import FlowPlusPlus
from pushforward.models.image.funnel_flow import ImageFunnelFlow
from pushforward.models.image.glow import ConvGlow, Glow
from pushforward.models.image.inflow import ImageInFlow
from pushforward.models.image.nice import ImageNICE
from pushforward.models.image.nsf import ImageNSF
from pushforward.models.image.pixelcnn import PixelCNN
from pushforward.models.image.realnvp import ImageRealNVP
from pushforward.models.image.residual import ImageIResNet, ImageResidualFlow
from pushforward.models.image.tarflow import TarFlow
from pushforward.models.latent.aef import AEF
from pushforward.models.latent.autoencoder import AutoEncoder
from pushforward.models.latent.cygen import CyGen
from pushforward.models.latent.vae import VAE
from pushforward.models.manifold.base import ManifoldModel
from pushforward.models.manifold.conformal_embedding import ConformalEmbeddingFlow
from pushforward.models.manifold.rectangular import RectangularFlow
from pushforward.models.manifold.two_step import TwoStep
from pushforward.models.vector.autoregressive import NAF, SOS, UMNN, AutoregressiveFlow, BernsteinFlow
from pushforward.models.vector.bnaf import BNAF
from pushforward.models.vector.cnf import CNF
from pushforward.models.vector.discrete_flow import DiscreteFlow
from pushforward.models.vector.funnel_flow import FunnelFlow
from pushforward.models.vector.gaussianization import GaussianizationFlow
from pushforward.models.vector.iaf import IAF
from pushforward.models.vector.inflow import GatedFlow, InFlow
from pushforward.models.vector.maf import MAF
from pushforward.models.vector.nice import NICE
from pushforward.models.vector.nsf import NSF
from pushforward.models.vector.realnvp import RealNVP
from pushforward.models.vector.residual import IResNet, ResidualFlow

__all__ = [
    "AEF",
    "BNAF",
    "CNF",
    "IAF",
    "MAF",
    "NAF",
    "NICE",
    "NSF",
    "SOS",
    "UMNN",
    "VAE",
    "AutoEncoder",
    "AutoregressiveFlow",
    "BernsteinFlow",
    "ConformalEmbeddingFlow",
    "ConvGlow",
    "CyGen",
    "DiscreteFlow",
    "Ensemble",
    "Flow",
    "FlowPlusPlus",
    "FunnelFlow",
    "GatedFlow",
    "GaussianizationFlow",
    "Glow",
    "IResNet",
    "ImageFunnelFlow",
    "ImageIResNet",
    "ImageInFlow",
    "ImageNICE",
    "ImageNSF",
    "ImageRealNVP",
    "ImageResidualFlow",
    "InFlow",
    "ManifoldModel",
    "Model",
    "PixelCNN",
    "RealNVP",
    "RectangularFlow",
    "ResidualFlow",
    "TarFlow",
    "TwoStep",
]

_PACKAGES = "manipulation"


def __getattr__(name: str) -> ModuleType:
    """Import a part on first use."""
    if name in _PACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
