"""Models of one architecture as one: their weights side by side, so that every operation is done for all at once."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from pushforward import registry
from pushforward.distributions import Distribution
from pushforward.errors import ConfigError
from pushforward.likelihood import Kind
from pushforward.models.base import Model
from pushforward.networks.masked import MaskedLinear
from pushforward.transforms import Affine, Chain, Jitter, LULinear, Standardize

__all__ = ["Stack", "StackedLinear", "Unstackable"]

_BROADCAST = (Affine, LULinear, Standardize)
"""Transforms whose own tensors may have a leading dimension of members."""


class Unstackable(Exception):
    """Models that cannot be trained as one, and why."""


class StackedLinear(nn.Module):
    """M linear layers at once: y_m = W_m x_m + b_m, ``(M, rows, inputs)`` to ``(M, rows, outputs)``.

    Args:
        layers: of one shape, masked alike.
    """

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        first = layers[0]
        self.in_features, self.out_features = first.in_features, first.out_features
        self.weight = nn.Parameter(torch.stack([layer.weight.detach() for layer in layers]))
        biased = first.bias is not None
        self.bias = nn.Parameter(torch.stack([layer.bias.detach() for layer in layers])) if biased else None
        masked = isinstance(first, MaskedLinear)
        self.register_buffer("mask", first.mask.to(first.weight.dtype) if masked else None)

    mask: Tensor | None

    def forward(self, input: Tensor) -> Tensor:
        """Each layer on its own rows."""
        weight = self.weight if self.mask is None else self.weight * self.mask
        if self.bias is None:
            return torch.bmm(input, weight.mT)
        return torch.baddbmm(self.bias.unsqueeze(1), input, weight.mT)


class Stack:
    """The trained parts of several models as one.

    Transforms in front that have nothing to train (preprocessing, and the noise of training) stay each member's own.

    Args:
        models: at least two.

    Raises:
        Unstackable: if they are not of one architecture, or hold something that has no stacked form.
    """

    def __init__(self, models: Sequence[Model]) -> None:
        self.models = list(models)
        first = models[0]
        if any(_form(model) != _form(first) for model in models[1:]):
            raise Unstackable("the models are not of one architecture")
        if type(first).loss is not Model.loss or first.context_features or len(first.shape) != 1:
            raise Unstackable("only vectors without a context, trained by their likelihood, are stacked")
        self.front = first.chain.first_trainable()
        if self.front == len(first.chain):
            raise Unstackable("no transform has anything to train")
        if _trained(first.base) or any(True for _ in first.base.children()):
            raise Unstackable("distributions with weights are not stacked")
        for part in first.chain[self.front :]:
            if part.kind is not Kind.EXACT or isinstance(part, Jitter) or part.needs_refresh:
                raise Unstackable(f"{type(part).__name__} draws noise or keeps statistics")
        self.fronts = [model.chain[: self.front] for model in models]
        trained = [model.chain[self.front :] for model in models]
        self.chain = Chain(*(stack(parts) for parts in zip(*trained, strict=True)))  # pyright: ignore[reportArgumentType]
        self.base: Distribution = first.base

    def parameters(self) -> Iterator[nn.Parameter]:
        """The stacked parameters, members first."""
        yield from self.chain.parameters()

    def dimensions(self) -> Iterator[tuple[nn.Parameter, int]]:
        """The stacked parameters, each with how many dimensions it has in a single model."""
        for part, stacked in zip(self.models[0].chain[self.front :], self.chain, strict=True):
            theirs = dict(part.named_parameters())
            for name, parameter in stacked.named_parameters():
                yield parameter, theirs[name].dim()

    def losses(self, batches: Sequence[Tensor], noise: Sequence[torch.Generator]) -> Tensor:
        """-mean log-likelihood of each member on its own batch, ``(M,)``."""
        rows, given = [], []
        with torch.no_grad():
            for front, x, generator in zip(self.fronts, batches, noise, strict=True):
                step = front.encode(x, noise=generator)
                rows.append(step.z)
                given.append(step.contribution)
        step = self.chain.encode(torch.stack(rows))
        return -(torch.stack(given) + step.contribution + self.base.log_prob(step.z)).mean(-1)

    @torch.no_grad()
    def spread(self) -> None:
        """Give each model its weights."""
        for k, model in enumerate(self.models):
            for part, stacked in zip(model.chain[self.front :], self.chain, strict=True):
                theirs = dict(part.named_parameters())
                for name, parameter in stacked.named_parameters():
                    theirs[name].copy_(parameter[k].reshape(theirs[name].shape))


def stack(modules: Sequence[nn.Module]) -> nn.Module:
    """A copy of the first module whose tensors are those of all, stacked.

    Raises:
        Unstackable: for a module whose tensors cannot have a leading dimension.
    """
    first = modules[0]
    if type(first) in (nn.Linear, MaskedLinear):
        return StackedLinear(list(modules))  # pyright: ignore[reportArgumentType]
    if isinstance(first, nn.Dropout) and first.p > 0:
        raise Unstackable("dropout would draw other numbers")
    children = dict(first.named_children())
    made = copy.deepcopy(first, {id(child): child for child in children.values()})  # children come below
    for name in children:
        setattr(made, name, stack([dict(module.named_children())[name] for module in modules]))
    for name in list(made._parameters):
        if (mine := made._parameters[name]) is not None:
            if not isinstance(first, _BROADCAST):
                raise Unstackable(f"{type(first).__name__} has weights of its own")
            made._parameters[name] = nn.Parameter(
                _side_by_side([module._parameters[name] for module in modules]), mine.requires_grad
            )
    for name in list(made._buffers):
        theirs = [module._buffers[name] for module in modules]
        if theirs[0] is None or all(torch.equal(theirs[0], other) for other in theirs[1:]):  # pyright: ignore
            continue
        if not isinstance(first, _BROADCAST):
            raise Unstackable(f"{type(first).__name__} differs between the models")
        made._buffers[name] = _side_by_side(theirs)
    return made


def _side_by_side(tensors: Sequence[Tensor | None]) -> Tensor:
    """Matrices as a batch of matrices; vectors with a dimension for the rows."""
    stacked = torch.stack([tensor.detach() for tensor in tensors if tensor is not None])
    return stacked.unsqueeze(1) if stacked.dim() == 2 else stacked


def _trained(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _form(model: Model) -> object:
    try:
        return registry.describe(model)
    except ConfigError as error:
        raise Unstackable(str(error)) from error
