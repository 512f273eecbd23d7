"""Conditioners: networks that turn coordinates and a context into parameters. They compute no likelihoods."""

from pushforward.networks.conv import ConvNet
from pushforward.networks.lipschitz import LipschitzMLP
from pushforward.networks.lipschitz_conv import LipschitzConvNet
from pushforward.networks.made import MADE
from pushforward.networks.mlp import MLP
from pushforward.networks.summaries import ConvSummary, RecurrentSummary, SetSummary
from pushforward.networks.velocity import VelocityMLP

__all__ = [
    "MADE",
    "MLP",
    "ConvNet",
    "ConvSummary",
    "LipschitzConvNet",
    "LipschitzMLP",
    "RecurrentSummary",
    "SetSummary",
    "VelocityMLP",
]
