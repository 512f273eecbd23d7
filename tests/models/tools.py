"""Helpers of the tests of models."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from pushforward.models import Model

M = TypeVar("M", bound=nn.Module)


def parts(model: Model) -> list[str]:
    """Names of the transforms of the chain."""
    return [type(part).__name__ for part in model.chain]


def jolted(model: M, size: float = 0.3, seed: int = 0) -> M:
    """The model in float64 and evaluation mode, with every parameter away from its start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.double().parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model.eval()
