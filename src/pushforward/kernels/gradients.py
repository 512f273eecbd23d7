"""Gradients that can be differentiated again, for the backward passes of native functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["gradients"]


def gradients(function: Callable[..., Any], inputs: Sequence[Tensor], grads: Sequence[Tensor]) -> list[Tensor | None]:
    """The products of the Jacobians of ``function(*inputs)`` with ``grads``, with a graph of their own.

    Each is the partial derivative by its input, also where one input was computed from another, as the parameters of an
    autoregressive transform are from x: autograd would follow that path as well, and it is counted outside already.

    Args:
        function: of the inputs, to one tensor or several.
        inputs: as in the forward pass.
        grads: of its results.

    Returns:
        One gradient for each input, None where it needs none.
    """
    views = [t.view_as(t) if t.requires_grad else t for t in inputs]
    wanted = [view for view in views if view.requires_grad]
    found = iter(torch.autograd.grad(function(*views), wanted, grads, create_graph=True))
    return [next(found) if view.requires_grad else None for view in views]
