"""Tensors from what users give: tensors, arrays and lists."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["as_tensor"]


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
