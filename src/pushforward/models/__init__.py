"""Models: one file a paper, each a chain of maps over a base."""

from pushforward.models.cnf import CNF
from pushforward.models.core import Flow, Model
from pushforward.models.ensemble import Ensemble
from pushforward.models.iaf import IAF
from pushforward.models.iresnet import IResNet
from pushforward.models.maf import MAF
from pushforward.models.nice import NICE
from pushforward.models.nsf import NSF
from pushforward.models.realnvp import RealNVP
from pushforward.models.residual_flow import ResidualFlow

__all__ = ["CNF", "IAF", "MAF", "NICE", "NSF", "Ensemble", "Flow", "IResNet", "Model", "RealNVP", "ResidualFlow"]
