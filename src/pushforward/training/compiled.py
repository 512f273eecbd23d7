"""The loss of a training step as one graph that `torch.compile` has made machine code of, and when that pays."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from types import FunctionType

import torch
from torch import Tensor, nn

from pushforward.likelihood import Kind
from pushforward.models.base import Model
from pushforward.training.budget import Budget
from pushforward.transforms import Jitter, Transform

__all__ = ["CompiledLoss", "Loss", "pays", "why_not"]

Loss = Callable[..., Tensor]
"""``loss(x, context, generator=...)``, as ``Model.loss``."""

STEPS, ROWS, LARGE = 50_000, 64, 500_000
"""Steps, of so many rows or more, after which every flow that was looked at has saved twice what compiling took; but for those of
so many weights, whose steps are matrix products, which stay as they are."""
SECONDS, SHARE = 2.5, 0.02
"""What a part of the chain takes to compile, and the share of a budget of time that all may take together: it is as small as
what some flows gain."""
SIZES = 4
"""Sizes of batches that are compiled; each is a graph of its own."""


class CompiledLoss:
    """``model.loss`` with everything from the first trained part of the chain on in one compiled graph.

    What comes before (checks of the data, preprocessing, noise of dequantization) runs as ever. The graph is made at the first
    call and holds for batches of one size; another size makes another one, up to four, and what has more sizes runs as ever.

    Args:
        model: one that :func:`why_not` says nothing against.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        first = model.chain.first_trainable()
        self.front, chain, base = model.chain[:first], model.chain[first:], model.base

        def finish(z: Tensor, context: Tensor | None, given: Tensor) -> Tensor:
            step = chain.encode(z, context)
            return -(given + step.contribution + base.log_prob(step.z, context)).mean()

        # Torch counts the graphs of a code object, whatever models they are of, and stops at eight: each model has its own.
        own = FunctionType(finish.__code__.replace(), globals(), "finish", None, finish.__closure__)
        self.finish = torch.compile(own, fullgraph=True, dynamic=False)
        self.sizes: set[torch.Size] = set()

    def __call__(self, x: Tensor, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """The loss, a scalar."""
        if x.shape not in self.sizes:
            if len(self.sizes) == SIZES:
                return self.model.loss(x, context, generator=generator)
            self.sizes.add(x.shape)
        x, context, far = self.model.prepare(x, context)
        step = self.front.encode(x, context, noise=generator)
        return self.finish(step.z, context, far + step.contribution)


def why_not(model: Model) -> str | None:
    """Why the loss of a model is not compiled, or None."""
    if type(model).loss is not Model.loss:
        return f"{type(model).__name__} has a loss of its own"
    tail = model.chain[model.chain.first_trainable() :]
    if not len(tail):
        return "its transforms have nothing to train"
    if model.chain.reversible:
        return "its chain is reversible"
    for part in tail:
        if any(_draws(inner) for inner in part.modules()):
            return f"{type(part).__name__} draws noise, estimates or keeps statistics"
    return None


def pays(model: Model, rows: int | None, budget: Budget) -> bool:
    """Whether compiling the loss saves more time than it takes, as far as is known before the first step.

    Only what a resumed run finds the same is asked: the model, the batch and the budget.

    Args:
        model: to train.
        rows: of a batch, or None if their number varies.
        budget: of the run.
    """
    if rows is None or rows < ROWS or len(model.shape) != 1 or why_not(model) is not None or not _compiler():
        return False
    weights = list(model.parameters())
    if any(weight.device.type != "cpu" for weight in weights) or sum(weight.numel() for weight in weights) > LARGE:
        return False
    takes = SECONDS * (len(model.chain) - model.chain.first_trainable())
    enough = budget.steps is None or budget.steps >= STEPS
    return enough and (budget.seconds is None or takes <= SHARE * budget.seconds)


def _compiler() -> bool:
    """Whether there is a C++ compiler, without which torch makes no machine code for a CPU."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", ""), "c++", "g++", "clang++") if name)


def _draws(module: nn.Module) -> bool:
    if isinstance(module, nn.Dropout):
        return False
    return isinstance(module, Transform) and (
        isinstance(module, Jitter) or module.needs_refresh or module.kind is not Kind.EXACT
    )
