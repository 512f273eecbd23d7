"""Whether a compiler, a tracer, a function transform or a CUDA graph sees a call, and constants that are safe there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.distributions import Distribution

__all__ = [
    "constant",
    "is_batched",
    "is_capturing",
    "is_compiling",
    "is_eager",
    "is_recording",
    "is_transformed",
    "keeps_distribution_checks",
    "may_check_values",
]


def is_compiling() -> bool:
    """Whether ``torch.compile`` or ``torch.export`` reads the code, so that sizes of a batch may be unknown.

    Example:
        >>> from pushforward.numerics import is_compiling
        >>> is_compiling()
        False
    """
    return torch.compiler.is_compiling()


def is_capturing() -> bool:
    """Whether a CUDA graph is being captured: operations are recorded, and their results do not exist yet.

    Example:
        >>> from pushforward.numerics import is_capturing
        >>> is_capturing()
        False
    """
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()


def is_recording() -> bool:
    """Whether operations are recorded by a compiler or a CUDA graph, so that Python cannot read a value.

    Example:
        >>> from pushforward.numerics import is_recording
        >>> is_recording()
        False
    """
    return is_compiling() or is_capturing()


def is_transformed() -> bool:
    """Whether a function transform (``torch.func.vmap``, ``grad``, ``jvp``, ...) is active.

    Example:
        >>> from pushforward.numerics import is_transformed
        >>> is_transformed()
        False
    """
    return torch._C._are_functorch_transforms_active()


def is_eager() -> bool:
    """Whether this is a plain call: tensors are what they seem, so Python may read values, keep buffers and pass memory to C.

    Not so under a compiler, a tracer, a function transform, forward-mode differentiation or the capture of a CUDA graph.

    Example:
        >>> from pushforward.numerics import is_eager
        >>> is_eager()
        True
    """
    return not (
        is_compiling()
        or is_capturing()
        or torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
        or is_transformed()
        or forward_ad._current_level >= 0
    )


def may_check_values(x: Tensor, training: bool = False) -> bool:
    """Whether to read the numbers in x in order to refuse wrong ones.

    Not under a compiler, the capture of a CUDA graph or ``vmap`` over x, where no single number exists; and not in training on an accelerator, where each read makes the
    host wait for all operations that it has queued. There NaN appears in the loss.

    Example:
        >>> import torch
        >>> from pushforward.numerics import may_check_values
        >>> may_check_values(torch.zeros(2))
        True
    """
    if is_recording() or is_batched(x):
        return False
    return not training or x.device.type == "cpu"


@contextmanager
def keeps_distribution_checks() -> Iterator[None]:
    """Restore the checks of ``torch.distributions`` after a ``with`` block.

    PyTorch's compiler turns them off for the whole process, also for distributions of the caller that it never reads.

    Example:
        >>> import torch
        >>> from pushforward.numerics import keeps_distribution_checks
        >>> with keeps_distribution_checks():
        ...     torch.distributions.Distribution.set_default_validate_args(False)  # as the compiler does
        >>> torch.distributions.Normal(0.0, -1.0)
        Traceback (most recent call last):
            ...
        ValueError: Expected parameter scale ...
    """
    before = Distribution._validate_args
    try:
        yield
    finally:
        Distribution.set_default_validate_args(before)


def is_batched(x: Tensor) -> bool:
    """Whether ``vmap`` runs over x, at any level of nested function transforms, or a backward pass of several gradients together.

    That is ``torch.autograd.grad(..., is_grads_batched=True)`` or ``jacobian(..., vectorize=True)``, which is no function transform.

    Example:
        >>> import torch
        >>> is_batched(torch.zeros(2))
        False
    """
    functorch = torch._C._functorch  # pyright: ignore[reportAttributeAccessIssue]
    if functorch.is_legacy_batchedtensor(x):
        return True
    while functorch.is_functorch_wrapped_tensor(x):
        if functorch.is_batchedtensor(x):
            return True
        x = functorch.get_unwrapped(x)
    return False


def constant(values: tuple[Any, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor of fixed numbers, which the caller must not change.

    Off the CPU it is copied once and kept as long as the process runs: a copy makes the host wait, and a CUDA graph reads it
    from one address. So the numbers must depend on an architecture, not on a call.

    Example:
        >>> import torch
        >>> from pushforward.numerics import constant
        >>> constant((1.0, 2.0), torch.float64, torch.device("cpu"))
        tensor([1., 2.], dtype=torch.float64)
    """
    if device.type == "cpu" or is_compiling():
        return torch.tensor(values, dtype=dtype, device=device)
    key = values, dtype, device
    found = _constants.get(key)
    if found is None:
        with torch.inference_mode(False):  # a later caller may need a gradient
            found = torch.tensor(values, dtype=dtype, device=device)
        if type(found) is Tensor:  # and not the symbolic tensor of a tracer
            _constants[key] = found
    return found


_constants: dict[tuple[tuple[Any, ...], torch.dtype, torch.device], Tensor] = {}
