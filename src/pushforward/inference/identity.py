"""`start_at_identity`: flows whose untrained layers change nothing."""

from __future__ import annotations

import torch

from pushforward.networks import MADE, MLP
from pushforward.transforms import Coupling, MaskedAutoregressive, Transform

__all__ = ["start_at_identity"]


@torch.no_grad()
def start_at_identity(chain: Transform) -> None:
    """Set the last layers of the networks of coupling and autoregressive layers to 0.

    Their transformers are the identity at 0. Training then starts at the simple density that precedes these layers in the
    chain, such as a Laplace approximation or a linear regression, and not at a random distortion of it.
    """
    for layer in chain.modules():
        if isinstance(layer, Coupling | MaskedAutoregressive) and isinstance(layer.network, MADE | MLP):
            for last in (layer.network.last, getattr(layer.network, "context_last", None)):
                for parameter in () if last is None else last.parameters():
                    parameter.zero_()
