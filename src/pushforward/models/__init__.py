"""Models: one file a paper, each a chain of maps over a base."""

from pushforward.models.core import Flow, Model
from pushforward.models.ensemble import Ensemble
from pushforward.models.iaf import IAF
from pushforward.models.maf import MAF
from pushforward.models.nice import NICE
from pushforward.models.nsf import NSF
from pushforward.models.pixelcnn import PixelCNN
from pushforward.models.realnvp import RealNVP
from pushforward.models.tarflow import TarFlow
from pushforward.models.vae import VAE

__all__ = ["IAF", "MAF", "NICE", "NSF", "VAE", "Ensemble", "Flow", "Model", "PixelCNN", "RealNVP", "TarFlow"]
