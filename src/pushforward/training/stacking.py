"""`Stack`: models of one architecture as one batched model, which does every operation for all of them at once."""

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

_BROADCASTING = (Affine, LULinear, Standardize)
"""Transforms whose own tensors may have a leading dimension of models."""


class Unstackable(Exception):
    """The models cannot be trained as one; the message says why."""


class StackedLinear(nn.Module):
    """M linear layers at once: y_m = W_m x_m + b_m, ``(M, rows, inputs)`` to ``(M, rows, outputs)``.

    Args:
        layers: layers of one shape with equal masks.
    """

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        first = layers[0]
        self.in_features, self.out_features = first.in_features, first.out_features
        weights = torch.stack([layer.weight.detach() for layer in layers])
        self.weight = nn.Parameter(weights, first.weight.requires_grad)
        has_bias = first.bias is not None
        self.bias = None
        if has_bias:
            biases = torch.stack([layer.bias.detach() for layer in layers])
            self.bias = nn.Parameter(biases, first.bias.requires_grad)
        is_masked = isinstance(first, MaskedLinear)
        self.register_buffer("mask", first.mask.to(first.weight.dtype) if is_masked else None)

    mask: Tensor | None

    def forward(self, input: Tensor) -> Tensor:
        """Apply each layer to its own rows."""
        weight = self.weight if self.mask is None else self.weight * self.mask
        if self.bias is None:
            return torch.bmm(input, weight.mT)
        return torch.baddbmm(self.bias.unsqueeze(1), input, weight.mT)


class Stack:
    """The trainable transforms of several models as one.

    The transforms before the first trainable one (preprocessing, noise of training) are not stacked.

    Args:
        models: at least two models.

    Raises:
        Unstackable: if their architectures differ, or if they contain a module that cannot be stacked.
    """

    def __init__(self, models: Sequence[Model]) -> None:
        self.models = list(models)
        first = models[0]
        if any(_describe(model) != _describe(first) for model in models[1:]):
            raise Unstackable("their architectures differ")
        if len({tuple(p.requires_grad for p in model.parameters()) for model in models}) > 1:
            raise Unstackable("other weights of each are fixed")
        if type(first).loss is not Model.loss or first.context_features or len(first.shape) != 1:
            raise Unstackable("only models of vectors without a context, trained by their likelihood, can be stacked")
        self.start = first.chain.first_trainable()
        if self.start == len(first.chain):
            raise Unstackable("no transform has anything to train")
        if _is_trainable(first.base) or any(True for _ in first.base.children()):
            raise Unstackable("distributions with weights cannot be stacked")
        state = first.base.state_dict()
        others = (model.base.state_dict() for model in models[1:])
        if not all(torch.equal(tensor, other[name]) for other in others for name, tensor in state.items()):
            raise Unstackable("their base distributions have other fixed weights")
        if type(first.base).initialize is not Distribution.initialize:
            raise Unstackable(f"{type(first.base).__name__} keeps what it finds in the rows of each model")
        for part in first.chain[self.start :]:
            if part.kind is not Kind.EXACT or isinstance(part, Jitter) or part.needs_refresh:
                raise Unstackable(f"{type(part).__name__} draws noise or keeps statistics")
        self.fronts = [model.chain[: self.start] for model in models]
        trained = [model.chain[self.start :] for model in models]
        self.chain = Chain(*(stack(parts) for parts in zip(*trained, strict=True)))  # pyright: ignore[reportArgumentType]
        self.base: Distribution = first.base

    def parameters(self) -> Iterator[nn.Parameter]:
        """The stacked parameters; their first dimension is that of the models."""
        yield from self.chain.parameters()

    def dimensions(self) -> Iterator[tuple[nn.Parameter, int]]:
        """The stacked parameters, each with its number of dimensions in a single model."""
        for part, stacked in zip(self.models[0].chain[self.start :], self.chain, strict=True):
            single = dict(part.named_parameters())
            for name, parameter in stacked.named_parameters():
                yield parameter, single[name].dim()

    def losses(self, batches: Sequence[Tensor], noise: Sequence[torch.Generator]) -> Tensor:
        """-mean log-likelihood of each model on its own batch, ``(M,)``.

        Args:
            batches: a batch for each model, all of one size.
            noise: a generator for each model, for its transforms that are not stacked.
        """
        inputs, log_dets = [], []
        with torch.no_grad():
            for front, x, generator in zip(self.fronts, batches, noise, strict=True):
                step = front.encode(x, noise=generator)
                inputs.append(step.z)
                log_dets.append(step.contribution)
        step = self.chain.encode(torch.stack(inputs))
        return -(torch.stack(log_dets) + step.contribution + self.base.log_prob(step.z)).mean(-1)

    @torch.no_grad()
    def unstack(self) -> None:
        """Copy the stacked weights to the models."""
        for k, model in enumerate(self.models):
            for part, stacked in zip(model.chain[self.start :], self.chain, strict=True):
                own = dict(part.named_parameters())
                for name, parameter in stacked.named_parameters():
                    own[name].copy_(parameter[k].reshape(own[name].shape))


def stack(modules: Sequence[nn.Module]) -> nn.Module:
    """A copy of the first module with the stacked tensors of all modules.

    Raises:
        Unstackable: for a module whose tensors cannot have a leading dimension.
    """
    first = modules[0]
    if type(first) in (nn.Linear, MaskedLinear):
        return StackedLinear(list(modules))  # pyright: ignore[reportArgumentType]
    if isinstance(first, nn.Dropout) and first.p > 0:
        raise Unstackable("dropout would draw other numbers")
    children = dict(first.named_children())
    stacked = copy.deepcopy(first, {id(child): child for child in children.values()})  # children are stacked below
    for name in children:
        setattr(stacked, name, stack([dict(module.named_children())[name] for module in modules]))
    for name in list(stacked._parameters):
        if (own := stacked._parameters[name]) is not None:
            if not isinstance(first, _BROADCASTING):
                raise Unstackable(f"{type(first).__name__} has its own weights")
            stacked._parameters[name] = nn.Parameter(
                _stack_tensors([module._parameters[name] for module in modules]), own.requires_grad
            )
    for name in list(stacked._buffers):
        buffers = [module._buffers[name] for module in modules]
        if buffers[0] is None or all(torch.equal(buffers[0], other) for other in buffers[1:]):  # pyright: ignore
            continue
        if not isinstance(first, _BROADCASTING):
            raise Unstackable(f"the buffers of {type(first).__name__} differ between the models")
        stacked._buffers[name] = _stack_tensors(buffers)
    return stacked


def _stack_tensors(tensors: Sequence[Tensor | None]) -> Tensor:
    """Matrices become a batch of matrices; vectors get a dimension for the rows."""
    stacked = torch.stack([tensor.detach() for tensor in tensors if tensor is not None])
    return stacked.unsqueeze(1) if stacked.dim() == 2 else stacked


def _is_trainable(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _describe(model: Model) -> object:
    try:
        return registry.describe(model)
    except ConfigError as error:
        raise Unstackable(str(error)) from error
