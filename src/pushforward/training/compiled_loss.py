"""`CompiledLoss`: the training loss of a flow, compiled with `torch.compile`."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType

import torch
from torch import Tensor, nn

from pushforward.likelihood import Kind
from pushforward.models.base import Model
from pushforward.numerics import keeps_distribution_checks
from pushforward.transforms import Jitter, Transform

__all__ = ["CompiledLoss", "Loss", "why_not_compilable"]

Loss = Callable[..., Tensor]
"""``loss(x, context, generator=...)``, like ``Model.loss``."""

_MOST_SIZES = 4
"""Number of batch sizes that are compiled; each needs its own graph."""


class CompiledLoss:
    """``model.loss``, with the chain from its first trainable transform on compiled to one graph.

    The transforms before it (checks of the data, preprocessing, noise of dequantization) run without compilation. The
    first call compiles the graph for its batch size. Up to four batch sizes are compiled; batches of other sizes run
    without compilation.

    Args:
        model: a model for which :func:`why_not_compilable` returns None.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        start = model.chain.first_trainable()
        self.front = model.chain[:start]
        chain, base = model.chain[start:], model.base

        def negative_log_likelihood(z: Tensor, context: Tensor | None, log_det: Tensor) -> Tensor:
            step = chain.encode(z, context)
            return -(log_det + step.contribution + base.log_prob(step.z, context)).mean()

        # A copy of the code for each model, because Dynamo compiles one code object at most eight times in a process.
        code = negative_log_likelihood.__code__.replace()
        function = FunctionType(code, globals(), "negative_log_likelihood", None, negative_log_likelihood.__closure__)
        with keeps_distribution_checks():
            self.graph = torch.compile(function, fullgraph=True, dynamic=False)
        self.sizes: set[torch.Size] = set()

    def __call__(self, x: Tensor, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """The loss, a scalar."""
        if x.shape not in self.sizes:
            if len(self.sizes) == _MOST_SIZES:
                return self.model.loss(x, context, generator=generator)
            self.sizes.add(x.shape)
        x, context, log_det = self.model.prepare(x, context)
        step = self.front.encode(x, context, noise=generator)
        return self.graph(step.z, context, log_det + step.contribution)


def why_not_compilable(model: Model) -> str | None:
    """Why the loss of a model cannot be compiled, or None if it can."""
    if type(model).loss is not Model.loss:
        return f"{type(model).__name__} defines its own loss"
    rest = model.chain[model.chain.first_trainable() :]
    if not len(rest):
        return "its transforms have nothing to train"
    if model.chain.reversible:
        return "its chain is reversible"
    for part in rest:
        if any(_is_random_or_stateful(module) for module in part.modules()):
            return f"{type(part).__name__} draws noise, estimates or keeps statistics"
    return None


def _is_random_or_stateful(module: nn.Module) -> bool:
    return isinstance(module, Transform) and (
        isinstance(module, Jitter) or module.needs_refresh or module.kind is not Kind.EXACT
    )
