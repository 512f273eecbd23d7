"""The form of data that a model reads, and the checks that data are in it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from pushforward.errors import InputError, PushforwardWarning
from pushforward.models.base import Model
from pushforward.transforms.base import Shape

__all__ = ["InputSpec", "Pair"]

Pair = tuple[Tensor, Tensor | None]
"""Rows and their context."""

_CHUNK = 1 << 22
_LOST = 1e6
"""Ratio of mean to standard deviation beyond which float32 holds hardly a digit of a column's variation."""


@dataclass(frozen=True)
class InputSpec:
    """What a model reads: rows of ``shape`` in ``dtype``, with a context of a width, on a device."""

    owner: str
    shape: Shape
    context: int
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, model: Model) -> InputSpec:
        """The form that ``model`` reads."""
        device = next((t.device for t in (*model.parameters(), *model.buffers())), torch.device("cpu"))
        return cls(type(model).__name__, model.shape, model.context_features, model.dtype, device)

    def cast(self, x: Tensor, context: Tensor | None) -> Pair:
        """Rows as the model reads them.

        Raises:
            InputError: for a wrong shape, complex numbers, or a missing context.
        """
        if tuple(x.shape[1:]) != self.shape or x.dim() == 0:
            hint = ""
            if self.shape == (1,) and x.dim() == 1:
                hint = ": x[:, None] makes a table of one column"
            elif x.shape == self.shape:
                hint = ": this is one row; x[None] makes a table of it"
            raise InputError(
                f"{self.owner} is trained on data of shape (rows, {', '.join(map(str, self.shape))}); got "
                f"{tuple(x.shape)}{hint}."
            )
        if x.is_complex():
            raise InputError(f"{self.owner} reads real numbers; got {x.dtype}.")
        x = x.to(self.device, self.dtype, non_blocking=True)
        if not self.context:
            return x, None
        if context is None:
            raise InputError(f"{self.owner} was built with context={self.context} and needs a context for each row.")
        return x, self.match(context, len(x)).to(self.device, non_blocking=True)

    def match(self, context: Tensor, rows: int) -> Tensor:
        """One context for each row: ``(rows, width)``, from that, from one context for all, or from a single column.

        Raises:
            InputError: naming both shapes.
        """
        if self.context == 1 and context.shape == (rows,):
            return context[:, None]
        if context.shape in ((self.context,), (1, self.context)):
            return context.expand(rows, self.context)
        if context.shape != (rows, self.context):
            raise InputError(
                f"{self.owner} needs a context of shape ({rows}, {self.context}), one for each of the {rows} rows; got "
                f"{tuple(context.shape)}."
            )
        return context

    def require_finite(self, x: Tensor, what: str) -> None:
        """Refuse NaN and infinity, also what becomes infinite in the model's type.

        Raises:
            InputError: naming the first place.
        """
        if not x.is_floating_point() or x.numel() == 0:
            return
        rows = max(1, _CHUNK // max(1, x[0].numel()))
        for start in range(0, len(x), rows):
            bad = ~torch.isfinite(x[start : start + rows].to(self.dtype))
            if bad.any():
                row, *place = bad.nonzero()[0].tolist()
                value = x[(start + row, *place)].item()
                where = f"row {start + row}" + (f", column {', '.join(map(str, place))}" if place else "")
                raise InputError(
                    f"the {what} hold {value:g} at {where}, which {self.dtype} training cannot use: fill or drop such "
                    "values, or use pf.Guard, which models missing ones."
                )

    def warn_if_lost(self, x: Tensor) -> None:
        """Warn once if the model's type cannot hold the variation of a column (|mean| / std above a million)."""
        if torch.finfo(self.dtype).bits >= 64 or len(x) < 2:
            return
        wide = x.cpu().double().reshape(len(x), -1)
        varies = wide.amax(0) > wide.amin(0)
        ratio = torch.where(varies, wide.mean(0).abs() / wide.std(0, correction=0), 0.0)
        lost = int((ratio > _LOST).sum())
        if not lost:
            return
        worst = int(ratio.argmax())
        others = f" and {lost - 1} other columns" if lost > 1 else ""
        warnings.warn(
            f"column {worst} has mean {wide[:, worst].mean():.6g} and standard deviation {wide[:, worst].std():.3g}: "
            f"{self.dtype} holds hardly a digit of what varies in it{others}. Subtract a constant from it first, or "
            "train in double precision with model.double().",
            PushforwardWarning,
            stacklevel=5,
        )
