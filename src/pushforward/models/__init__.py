"""Models: one file a paper, each a chain of transforms over a base."""

from pushforward.models.base import Flow, Model
from pushforward.models.ensemble import Ensemble
from pushforward.models.image.conv_glow import ConvGlow
from pushforward.models.image.flowpp import FlowPlusPlus
from pushforward.models.image.glow import Glow
from pushforward.models.image.pixelcnn import PixelCNN
from pushforward.models.image.tarflow import TarFlow
from pushforward.models.latent.aef import AEF
from pushforward.models.latent.autoencoder import AutoEncoder
from pushforward.models.latent.cygen import CyGen
from pushforward.models.latent.vae import VAE
from pushforward.models.manifold.conformal_embedding import ConformalEmbeddingFlow
from pushforward.models.manifold.funnel_flow import FunnelFlow
from pushforward.models.manifold.rectangular import RectangularFlow
from pushforward.models.manifold.surface import SurfaceModel
from pushforward.models.manifold.two_step import TwoStep
from pushforward.models.vector.bernstein import BernsteinFlow
from pushforward.models.vector.bnaf import BNAF
from pushforward.models.vector.cnf import CNF
from pushforward.models.vector.discrete_flow import DiscreteFlow
from pushforward.models.vector.gaussianization import GaussianizationFlow
from pushforward.models.vector.iaf import IAF
from pushforward.models.vector.inflow import InFlow
from pushforward.models.vector.iresnet import IResNet
from pushforward.models.vector.maf import MAF
from pushforward.models.vector.naf import NAF
from pushforward.models.vector.nice import NICE
from pushforward.models.vector.nsf import NSF
from pushforward.models.vector.realnvp import RealNVP
from pushforward.models.vector.residual_flow import ResidualFlow
from pushforward.models.vector.sos import SOS
from pushforward.models.vector.umnn import UMNN

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
    "BernsteinFlow",
    "ConformalEmbeddingFlow",
    "ConvGlow",
    "CyGen",
    "DiscreteFlow",
    "Ensemble",
    "Flow",
    "FlowPlusPlus",
    "FunnelFlow",
    "GaussianizationFlow",
    "Glow",
    "IResNet",
    "InFlow",
    "Model",
    "PixelCNN",
    "RealNVP",
    "RectangularFlow",
    "ResidualFlow",
    "SurfaceModel",
    "TarFlow",
    "TwoStep",
]
