"""Conditioners: networks that turn coordinates and a context into parameters. They know nothing of likelihoods."""

from pushforward.networks.conv import ConvNet
from pushforward.networks.made import MADE
from pushforward.networks.mlp import MLP

__all__ = ["MADE", "MLP", "ConvNet"]
