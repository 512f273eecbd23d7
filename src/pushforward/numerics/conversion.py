"""Tensors from what users give, and in the layout that convolutions want."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pushforward.numerics.tracing import is_transformed

__all__ = ["as_tensor", "channels_last"]


def as_tensor(data: Any) -> Tensor:
    """``torch.as_tensor``, without its warning for read-only arrays, which it copies.

    Arrays from pictures, memory-mapped files and data frames are often read-only.

    >>> import numpy as np
    >>> as_tensor(np.broadcast_to(1.0, (2, 2))).shape
    torch.Size([2, 2])
    """
    if isinstance(data, np.ndarray) and not data.flags.writeable:
        data = data.copy()
    return torch.as_tensor(data)


def channels_last(x: Tensor) -> Tensor:
    """Images with their channels last in memory, which convolutions on a CPU read faster.

    Function transforms (``torch.func.vmap``, ``grad``, ...) do not support that layout; there the images stay as they are.

    Example:
        >>> import torch
        >>> channels_last(torch.zeros(1, 2, 3, 3)).is_contiguous(memory_format=torch.channels_last)
        True
    """
    return x if is_transformed() else x.contiguous(memory_format=torch.channels_last)
