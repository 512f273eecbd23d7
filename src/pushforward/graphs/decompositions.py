"""Operations of torch that ONNX lacks, in terms of operations that it has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pushforward.graphs.numeric import count_below

__all__ = ["DECOMPOSITIONS", "is_lacking"]


def _searchsorted(values: Tensor, x: Tensor, *, right: bool = False, side: str | None = None, **options: Any) -> Tensor:
    return count_below(values, x, right=right or side == "right")


def _kthvalue(x: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    values, index = x.topk(k, dim, largest=False)
    found = values.narrow(dim, k - 1, 1), index.narrow(dim, k - 1, 1)
    return found if keepdim else (found[0].squeeze(dim), found[1].squeeze(dim))


def _euclidean(x: Tensor, y: Tensor) -> Tensor:
    squares = x.square().sum(-1, keepdim=True) + y.square().sum(-1, keepdim=True).transpose(-2, -1)
    return (squares - 2.0 * x @ y.transpose(-2, -1)).clamp(min=0.0).sqrt()


def _cdist(x: Tensor, y: Tensor, p: float, compute_mode: int | None = None) -> Tensor:
    if p != 2.0:
        raise NotImplementedError("distances of another norm than the Euclidean one")
    return _euclidean(x, y)


def _sum(x: Tensor, dim: list[int] | None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Any:
    """A count in small integers, as splines find their bin; ONNX adds no numbers shorter than 32 bits."""
    return x.sum(dim, keepdim, dtype=torch.int64).to(dtype) if dtype is torch.uint8 else NotImplemented


_INFINITE: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.isinf.default: lambda x: x.abs() == torch.inf,
    torch.ops.aten.isposinf.default: lambda x: x == torch.inf,
    torch.ops.aten.isneginf.default: lambda x: x == -torch.inf,
}
"""Their translations to ONNX read float32, in which 1e300 is infinite too."""

DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.searchsorted.Tensor: _searchsorted,
    torch.ops.aten.kthvalue.default: _kthvalue,
    torch.ops.aten.sum.dim_IntList: _sum,
    torch.ops.aten._cdist_forward.default: _cdist,
    torch.ops.aten._euclidean_dist.default: _euclidean,
    **_INFINITE,
}


def is_lacking(node: torch.fx.Node) -> bool:
    """Whether ONNX lacks the operation of a node."""
    if node.target in _INFINITE:
        read = node.args[0]
        return isinstance(read, torch.fx.Node) and read.meta["val"].dtype is torch.float64
    counts = node.target is torch.ops.aten.sum.dim_IntList
    return node.target in DECOMPOSITIONS and (not counts or node.kwargs.get("dtype") is torch.uint8)
