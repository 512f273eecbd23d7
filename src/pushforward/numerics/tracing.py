"""Whether a compiler, a tracer or a CUDA graph is recording, and constants that are safe to use there."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

__all__ = ["constant", "is_capturing", "is_eager", "may_check_values"]


def is_capturing() -> bool:
    """Whether a CUDA graph is being captured: what runs is only written down, so there are no numbers to look at."""
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()


def is_eager() -> bool:
    """Whether no compiler, tracer, function transform or CUDA graph is watching, so that Python may look at values and buffers."""
    return not (
        torch.compiler.is_compiling()
        or is_capturing()
        or torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
        or torch._C._functorch.peek_interpreter_stack() is not None  # pyright: ignore[reportAttributeAccessIssue]
        or forward_ad._current_level >= 0
    )


def may_check_values(x: Tensor, training: bool = False) -> bool:
    """Whether to look at the numbers in x, to refuse what is wrong with them.

    Not where a compiler or a CUDA graph only writes down what runs; and not in training on an accelerator, where each look
    makes the host wait for all that it has queued. There NaN shows in the loss.
    """
    if torch.compiler.is_compiling() or is_capturing():
        return False
    return not training or x.device.type == "cpu"


def constant(values: tuple[Any, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor of fixed numbers, which nobody writes to.

    Off the CPU it is copied once and kept for good: a copy makes the host wait, and a CUDA graph reads it where it is. So the
    numbers must belong to an architecture, not to a call.
    """
    if device.type == "cpu" or torch.compiler.is_compiling():
        return torch.tensor(values, dtype=dtype, device=device)
    key = values, dtype, device
    found = _constants.get(key)
    if found is None:
        with torch.inference_mode(False):  # whoever comes next may want a gradient
            found = torch.tensor(values, dtype=dtype, device=device)
        if type(found) is Tensor:  # and no stand-in of a tracer
            _constants[key] = found
    return found


_constants: dict[tuple[tuple[Any, ...], torch.dtype, torch.device], Tensor] = {}
