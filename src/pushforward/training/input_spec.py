"""`InputSpec`: shape, type and device of the data that a model reads, and the checks of data against them."""

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

_VALUES_AT_ONCE = 1 << 22
_LARGEST_RATIO = 1e6
"""Ratio of mean to standard deviation of a column beyond which float32 loses nearly all digits of its variation."""


@dataclass(frozen=True)
class InputSpec:
    """What a model reads: rows of ``shape`` in ``dtype`` on ``device``, each with ``context`` numbers of context."""

    model_name: str
    shape: Shape
    context: int
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, model: Model) -> InputSpec:
        """The data that ``model`` reads."""
        device = next((t.device for t in (*model.parameters(), *model.buffers())), torch.device("cpu"))
        return cls(type(model).__name__, model.shape, model.context_features, model.dtype, device)

    def cast(self, x: Tensor, context: Tensor | None) -> Pair:
        """Rows in the type and on the device of the model.

        Raises:
            InputError: for a wrong shape, complex numbers, or a missing context.
        """
        self.check_shape(x)
        if x.is_complex():
            raise InputError(f"{self.model_name} reads real numbers; got {x.dtype}.")
        x = x.to(self.device, self.dtype, non_blocking=True)
        if not self.context:
            return x, None
        if context is None:
            raise InputError(
                f"{self.model_name} was built with context={self.context} and needs a context for each row."
            )
        return x, self.expand_context(context, len(x)).to(self.device, non_blocking=True)

    def check_shape(self, x: Tensor, what: str = "data") -> None:
        """Refuse anything but rows of the model's shape; ``what`` names the data.

        Raises:
            InputError: with the shape that it has.
        """
        if tuple(x.shape[1:]) == self.shape and x.dim():
            return
        hint = ""
        if self.shape == (1,) and x.dim() == 1:
            hint = ": x.reshape(-1, 1), or to_frame() of a Series, makes it a table of one column"
        elif x.shape == self.shape:
            hint = ": this is one row; x[None] makes it a table of one row"
        raise InputError(
            f"{self.model_name} trains on data of shape (rows, {', '.join(map(str, self.shape))}); got "
            f"{tuple(x.shape)}{'' if what == 'data' else f' as the {what}'}{hint}."
        )

    def expand_context(self, context: Tensor, rows: int) -> Tensor:
        """One context for each row, ``(rows, width)``. One context for all rows and a single column are accepted too.

        Raises:
            InputError: for another shape, or complex numbers.
        """
        if context.is_complex():
            raise InputError(f"{self.model_name} reads a context of real numbers; got {context.dtype}.")
        if self.context == 1 and context.shape == (rows,):
            return context[:, None]
        if context.shape in ((self.context,), (1, self.context)):
            return context.expand(rows, self.context)
        if context.shape != (rows, self.context):
            raise InputError(
                f"{self.model_name} needs a context of shape ({rows}, {self.context}), one for each of the {rows} rows; "
                f"got {tuple(context.shape)}."
            )
        return context

    def require_finite(self, x: Tensor, what: str) -> None:
        """Refuse NaN and infinity, and numbers that become infinite in the model's type.

        Args:
            x: data of any type.
            what: the data, for the error message.

        Raises:
            InputError: with the position of the first such number.
        """
        if not x.is_floating_point() or x.numel() == 0:
            return
        rows = max(1, _VALUES_AT_ONCE // max(1, x[0].numel()))
        for start in range(0, len(x), rows):
            bad = ~torch.isfinite(x[start : start + rows].to(self.dtype))
            if bad.any():
                row, *column = bad.nonzero()[0].tolist()
                value = x[(start + row, *column)].item()
                position = f"row {start + row}" + (f", column {', '.join(map(str, column))}" if column else "")
                raise InputError(
                    f"the {what} contain {value:g} at {position}, which {self.dtype} training cannot use: replace or "
                    "drop such values, or use pf.Guard, which accepts missing values."
                )

    def warn_if_imprecise(self, x: Tensor, what: str = "") -> None:
        """Warn if the model's type cannot represent the variation of a column (|mean| / std above a million).

        Args:
            x: rows.
            what: what they are, for the warning: nothing for data, or " of the context".
        """
        if torch.finfo(self.dtype).bits >= 64 or len(x) < 2:
            return
        columns = x.cpu().double().reshape(len(x), -1)
        varies = columns.amax(0) > columns.amin(0)
        ratio = torch.where(varies, columns.mean(0).abs() / columns.std(0, correction=0), 0.0)
        count = int((ratio > _LARGEST_RATIO).sum())
        if not count:
            return
        worst = int(ratio.argmax())
        others = f" (and of {count - 1} other columns)" if count > 1 else ""
        warnings.warn(
            f"column {worst}{what} has mean {columns[:, worst].mean():.6g} and standard deviation "
            f"{columns[:, worst].std():.3g}: {self.dtype} loses nearly all digits of its variation{others}. Subtract a constant from it first, or "
            "train in double precision with model.double().",
            PushforwardWarning,
            stacklevel=5,
        )
