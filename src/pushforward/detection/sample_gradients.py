"""Per-sample gradients of the log-likelihood with respect to all weights."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from pushforward.detection.without_preprocessing import WithoutPreprocessing, differentiable

__all__ = ["sample_gradients"]

_NUMBERS = 2**25
"""Largest number of values in the gradients of one chunk: 128 MB in float32."""


def sample_gradients(inner: WithoutPreprocessing, y: Tensor) -> Iterator[dict[str, Tensor]]:
    """d log p(y_i) / d theta of each row, in chunks of rows: parameter name -> ``(rows, *parameter shape)``.

    Frozen weights are included, and no weight or its ``grad`` changes. The rows are computed together with ``vmap`` if the
    model's transforms allow it, otherwise one at a time. The number of rows of a chunk is a power of two, so that chunks
    divide batches of such sizes.
    """
    weights = {name: weight.detach() for name, weight in inner.named_parameters()}
    size, rows = sum(weight.numel() for weight in weights.values()), 64
    while rows > 1 and rows * size > _NUMBERS:
        rows //= 2

    def one(weights: dict[str, Tensor], row: Tensor) -> Tensor:
        return functional_call(inner, weights, (row.unsqueeze(0),))[0]

    for part in y.split(rows):
        try:
            with torch.inference_mode(False), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch warns if vmap is slow
                yield vmap(grad(one), in_dims=(None, 0))(weights, part.clone())
        except RuntimeError:  # data-dependent control flow, or an operation without vmap support
            yield _one_by_one(inner, weights, part)


def _one_by_one(inner: WithoutPreprocessing, weights: dict[str, Tensor], y: Tensor) -> dict[str, Tensor]:
    found: dict[str, list[Tensor]] = {name: [] for name in weights}
    for row in y:
        with differentiable(row.unsqueeze(0)) as at:
            own = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
            value = functional_call(inner, own, (at,)).sum()
            slopes = torch.autograd.grad(value, list(own.values()), allow_unused=True, materialize_grads=True)
        for name, slope in zip(own, slopes, strict=True):
            found[name].append(slope)
    return {name: torch.stack(slopes) for name, slopes in found.items()}
