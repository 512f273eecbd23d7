"""Full precision where autocast would spoil an inverse or a likelihood."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["full_precision"]


def full_precision(x: Tensor) -> torch.autocast:
    """A context without autocast on the device of ``x``: bfloat16 products would spoil inverses and likelihoods.

    Example:
        >>> import torch
        >>> from pushforward.numerics import full_precision
        >>> x = torch.ones(2, 2)
        >>> with torch.autocast("cpu", torch.bfloat16), full_precision(x):
        ...     print((x @ x).dtype)
        torch.float32
    """
    return torch.autocast(x.device.type, enabled=False)
