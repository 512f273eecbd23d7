"""Gradients of a chain without stored activations: the backward pass computes each input again from the output."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from pushforward.errors import ConfigError, ConvergenceError
from pushforward.numerics import may_check_values

if TYPE_CHECKING:
    from pushforward.transforms.base import Transform
    from pushforward.transforms.chain import Chain

__all__ = ["encode_reversibly", "require_reversible"]


def require_reversible(parts: Iterable[Transform]) -> None:
    """Refuse parts whose input cannot be computed from their output exactly and in about one pass.

    Raises:
        ConfigError: naming the part and the reason.
    """
    for part in parts:
        name = type(part).__name__
        why = None
        if not part.bijective:
            why = "it is not a bijection"
        elif part.estimators:  # its own, or those of a part inside of it
            why = "its inverse is an iteration, and not exact"
        elif part.decode_passes > 1:
            why = f"its inverse takes {part.decode_passes} steps"
        elif part.needs_refresh:
            why = "in training it normalizes by statistics of the batch, which its inverse does not have"
        elif any(isinstance(module, nn.Dropout) and module.p > 0 for module in part.modules()):
            why = "dropout would draw different numbers the second time"
        if why is not None:
            raise ConfigError(f"{name} cannot be in a reversible chain: {why}.")


def encode_reversibly(chain: Chain, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    """z and the contribution of a chain of bijections; only z is kept for the backward pass."""
    weights = [p for part in chain for p in part.parameters() if p.requires_grad]
    return _Reversible.apply(chain, context, x, *([] if context is None else [context]), *weights)  # pyright: ignore


class _Reversible(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, chain: Chain, context: Tensor | None, x: Tensor, *others: Tensor) -> Any:
        z, total, *_ = chain.encode(x, context)  # records no graph, as autograd turns gradients off here
        ctx.chain, ctx.device = chain, x.device.type
        ctx.amp = torch.is_autocast_enabled(ctx.device), torch.get_autocast_dtype(ctx.device)
        ctx.save_for_backward(z.detach(), *([] if context is None else [context]))
        # A part may return its input itself, but a Function must return new tensors.
        return (z.clone() if z is x else z), total.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        grad_z, grad_total = grads
        z, *given = ctx.saved_tensors
        found: dict[Tensor, Tensor] = {}
        context = given[0].detach().requires_grad_() if given else None
        with torch.autocast(ctx.device, enabled=ctx.amp[0], dtype=ctx.amp[1]):
            for part in reversed(list(ctx.chain)):
                with torch.enable_grad():
                    x, step = part.invert_with_graph(z, context)
                grad_z = grad_z + _check(part, step.z.detach(), z)
                wanted = [x, *([] if context is None else [context])]
                wanted += [p for p in part.parameters() if p.requires_grad]
                outputs = [(o, g) for o, g in ((step.z, grad_z), (step.contribution, grad_total)) if o.requires_grad]
                got = torch.autograd.grad([o for o, _ in outputs], wanted, [g for _, g in outputs], allow_unused=True)
                for tensor, gradient in zip(wanted[1:], got[1:], strict=True):
                    if gradient is not None:
                        found[tensor] = found[tensor] + gradient if tensor in found else gradient
                z = x.detach()
                grad_z = torch.zeros_like(z) if got[0] is None else got[0]
        weights = [p for part in ctx.chain for p in part.parameters() if p.requires_grad]
        seen: set[Tensor] = set()  # a weight that several parts share gets the sum at its first occurrence
        result = []
        for weight in weights:
            result.append(None if weight in seen else found.get(weight))
            seen.add(weight)
        return (None, None, grad_z, *([] if context is None else [found.get(context)]), *result)


def _check(part: Transform, again: Tensor, z: Tensor) -> Tensor | float:
    """Refuse an input from which the part does not compute the output again.

    Returns:
        A number to add to the gradient: 0, or NaN for a wrong input where values cannot be read to raise the error.

    Raises:
        ConvergenceError: naming the part.
    """
    tolerance = 1e-2 if z.dtype in (torch.bfloat16, torch.float16) else torch.finfo(z.dtype).eps ** 0.5 * 3
    error = (again - z).abs() / (1 + z.abs())
    within = (error <= tolerance).all()
    if not may_check_values(z, training=True):
        return torch.where(within, 0.0, math.nan).to(z.dtype)
    if not bool(within):
        raise ConvergenceError(
            f"the inverse of {type(part).__name__} does not reproduce its output (error {error.max().item():.2g}): train this "
            "model without reversible=True."
        )
    return 0.0
