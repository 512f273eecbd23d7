"""Models: one file a paper, each a chain of maps over a base."""

from pushforward.models.aef import AEF
from pushforward.models.autoencoder import AutoEncoder
from pushforward.models.bernstein import BernsteinFlow
from pushforward.models.bnaf import BNAF
from pushforward.models.cnf import CNF
from pushforward.models.conformal import ConformalEmbeddingFlow
from pushforward.models.conv_glow import ConvGlow
from pushforward.models.core import Flow, Model
from pushforward.models.cygen import CyGen
from pushforward.models.discrete_flow import DiscreteFlow
from pushforward.models.ensemble import Ensemble
from pushforward.models.flowpp import FlowPlusPlus
from pushforward.models.funnel_flow import FunnelFlow
from pushforward.models.gaussianization import GaussianizationFlow
from pushforward.models.glow import Glow
from pushforward.models.iaf import IAF
from pushforward.models.inflow import InFlow
from pushforward.models.iresnet import IResNet
from pushforward.models.maf import MAF
from pushforward.models.naf import NAF
from pushforward.models.nice import NICE
from pushforward.models.nsf import NSF
from pushforward.models.pixelcnn import PixelCNN
from pushforward.models.realnvp import RealNVP
from pushforward.models.rectangular import RectangularFlow
from pushforward.models.residual_flow import ResidualFlow
from pushforward.models.sos import SOS
from pushforward.models.surface import SurfaceModel
from pushforward.models.tarflow import TarFlow
from pushforward.models.two_step import TwoStep
from pushforward.models.umnn import UMNN
from pushforward.models.vae import VAE

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
