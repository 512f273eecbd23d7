"""`as_numbers`: parameters, data and observations as tensors of real numbers, from what users and simulators give."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pushforward.errors import InputError
from pushforward.numerics.conversion import as_tensor

__all__ = ["as_numbers"]

_COARSE = (torch.float16, torch.bfloat16, torch.bool, torch.int8, torch.uint8, torch.int16)


def as_numbers(value: Any, name: str) -> Tensor:
    """A tensor of float32 or float64 numbers on the CPU, without gradient; float64 where float32 could lose digits.

    Args:
        value: a tensor, an array, a data frame, a list or a number.
        name: what it is, for the error.

    Raises:
        InputError: for something that is not real numbers.

    Example:
        >>> as_numbers([1, 2], "theta").dtype
        torch.float64
    """
    try:
        tensor = value.detach().cpu() if isinstance(value, Tensor) else as_tensor(np.asarray(value))
    except (TypeError, ValueError, RuntimeError):
        raise InputError(
            f"{name} must be real numbers of one shape, as a tensor or an array; got {type(value).__name__}."
        ) from None
    if tensor.is_complex():
        raise InputError(
            f"{name} must be real numbers; got {str(tensor.dtype).removeprefix('torch.')}: give its real and imaginary parts."
        )
    if tensor.dtype in _COARSE:
        return tensor.float()
    return tensor if tensor.is_floating_point() else tensor.double()
