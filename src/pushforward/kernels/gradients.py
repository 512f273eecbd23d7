"""Gradients by plain operations, for the backward passes of native functions that native code cannot compute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pushforward.numerics.tracing import is_batched

__all__ = ["gradients", "needs_plain"]


def needs_plain(grads: Sequence[Tensor]) -> bool:
    """Whether a backward pass must use plain operations: it is differentiated itself, or ``vmap`` runs over it."""
    return torch.is_grad_enabled() or any(is_batched(grad) for grad in grads)


def gradients(function: Callable[..., Any], inputs: Sequence[Tensor], grads: Sequence[Tensor]) -> list[Tensor | None]:
    """The products of the Jacobians of ``function(*inputs)`` with ``grads``, with a graph of their own where gradients are enabled.

    Each is the partial derivative by its input, also where one input was computed from another, as the parameters of an
    autoregressive transform are from x: autograd would follow that path as well, and it is counted outside already.

    Args:
        function: of the inputs, to one tensor or several.
        inputs: as in the forward pass.
        grads: of its results.

    Returns:
        One gradient for each input, None where it needs none.
    """
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        views = [t.view_as(t) if t.requires_grad else t for t in inputs]
        results = function(*views)
    wanted = [view for view in views if view.requires_grad]
    found = iter(torch.autograd.grad(results, wanted, grads, create_graph=again))
    return [next(found) if view.requires_grad else None for view in views]
