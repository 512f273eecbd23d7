"""Checks of the data, contexts and arguments that a model is given."""

from __future__ import annotations

import torch
from torch import Tensor

from pushforward.errors import InputError
from pushforward.numerics import may_check_values
from pushforward.transforms.base import Shape, check_context, check_event

__all__ = [
    "check_data",
    "check_finite",
    "check_model_context",
    "check_no_nan",
    "check_shape",
]


def check_data(x: Tensor, shape: Shape, owner: str) -> None:
    """Refuse data that a model cannot read.

    Raises:
        InputError: for an object that is not a tensor, a wrong event shape, complex numbers or NaN.
    """
    check_shape(x, shape, owner)
    if may_check_values(x):
        check_no_nan(x, owner)


def check_shape(x: Tensor, shape: Shape, owner: str) -> None:
    """Refuse data of the wrong type or shape; the values are not read.

    Raises:
        InputError: for an object that is not a tensor, a wrong event shape or complex numbers.
    """
    if not isinstance(x, Tensor):
        how = "x.to_numpy()" if hasattr(x, "to_numpy") else "x"
        raise InputError(
            f"{owner} reads torch tensors; got {type(x).__name__}: convert it with torch.as_tensor({how}, dtype=torch.float32)."
        )
    if x.is_complex():
        raise InputError(f"{owner} reads real numbers; got {x.dtype}.")
    check_event(x, shape, owner)


def check_no_nan(x: Tensor, owner: str) -> None:
    """Refuse NaN.

    Raises:
        InputError: with the index of the first NaN.
    """
    if x.is_floating_point() and torch.isnan(x).any():
        index = torch.isnan(x).nonzero()[0].tolist()
        raise InputError(
            f"{owner} got NaN at index {tuple(index)} (row {index[0]}): fill or drop missing values, or use pf.Guard, "
            "which models them."
        )


def check_finite(x: Tensor, owner: str) -> None:
    """Refuse NaN and infinite values.

    Raises:
        InputError: with the index of the first one.
    """
    check_no_nan(x, owner)
    if x.is_floating_point() and torch.isinf(x).any():
        index = torch.isinf(x).nonzero()[0].tolist()
        raise InputError(
            f"{owner} got {x[tuple(index)].item()} at index {tuple(index)} (row {index[0]}): training rows must be finite, so "
            "leave such rows out."
        )


def check_model_context(context: Tensor | None, width: int, owner: str, *, training: bool) -> None:
    """Refuse a context that a model cannot read, a missing one, or one that the model has no use for.

    Raises:
        InputError: for any of these, for complex numbers, and with the index of the first value that is not finite.
    """
    if context is not None and not width:
        raise InputError(f"this {owner} takes no context: build it with a width for it, or leave the context out.")
    check_context(context, width, owner)
    if context is not None and context.is_complex():
        raise InputError(f"{owner} reads a context of real numbers; got {context.dtype}.")
    if context is not None and may_check_values(context, training) and not torch.isfinite(context).all():
        index = tuple((~torch.isfinite(context)).nonzero()[0].tolist())
        value = str(context[index].item()).replace("nan", "NaN")
        raise InputError(f"{owner} got {value} in its context at index {index}: give every row a finite context.")
