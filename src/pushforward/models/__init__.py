"""Models: one file a paper, each a chain of maps over a base."""

from pushforward.models.bernstein import BernsteinFlow
from pushforward.models.bnaf import BNAF
from pushforward.models.core import Flow, Model
from pushforward.models.discrete_flow import DiscreteFlow
from pushforward.models.ensemble import Ensemble
from pushforward.models.gaussianization import GaussianizationFlow
from pushforward.models.iaf import IAF
from pushforward.models.maf import MAF
from pushforward.models.naf import NAF
from pushforward.models.nice import NICE
from pushforward.models.nsf import NSF
from pushforward.models.realnvp import RealNVP
from pushforward.models.sos import SOS
from pushforward.models.umnn import UMNN

__all__ = ["BNAF", "BernsteinFlow", "DiscreteFlow", "Ensemble", "Flow", "GaussianizationFlow", "IAF", "MAF", "Model", "NAF", "NICE", "NSF", "RealNVP", "SOS", "UMNN"]
