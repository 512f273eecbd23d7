"""Full precision where autocast would spoil an inverse or a likelihood."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["full_precision"]


def full_precision(x: Tensor) -> torch.autocast:
    """A context without autocast on the device of ``x``: bfloat16 products would spoil inverses and likelihoods."""
    return torch.autocast(x.device.type, enabled=False)
