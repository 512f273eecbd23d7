"""`Head`: the last linear layer of a network, found by what the network returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pushforward.detection.network.layers import Call
from pushforward.detection.network.reading import pool

__all__ = ["Head", "find_head"]

_OF_ROWS: tuple[Callable[[Tensor], Tensor], ...] = (lambda z: torch.softmax(z, -1), lambda z: torch.log_softmax(z, -1))
_OF_NUMBERS: tuple[Callable[[Tensor], Tensor], ...] = (torch.sigmoid, F.logsigmoid)
_OF_FEW: tuple[Callable[[Tensor], Tensor], ...] = (torch.tanh, F.softplus, torch.exp, torch.relu)
"""Functions after a last layer that has fewer outputs than inputs; wider layers with such functions are rather inner ones."""
_FEWEST_ROWS = 4
"""Rows by which a factor and a shift can be told from chance."""
_WIDEST = 64
"""Most columns whose order is looked at."""


@dataclass(frozen=True)
class Head:
    """The last linear layer.

    Attributes:
        name: of the module.
        call: which of its calls in a forward pass makes the logits, counted from the last one, -1.
        is_output: whether the network returns its output, up to ``columns``; else the logits are its output, which the network returns
            after a function such as the softmax.
        columns: for each logit the column of its output, or -1 for a constant; empty if they are the same.
        scales: factors of these columns.
        shifts: what is added to these columns.
    """

    name: str
    call: int = -1
    is_output: bool = True
    columns: tuple[int, ...] = ()
    scales: tuple[float, ...] = ()
    shifts: tuple[float, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Its fields, as in a file."""
        return {
            "head": self.name, "head_call": self.call, "head_is_output": self.is_output, "head_columns": list(self.columns),
            "head_scales": list(self.scales), "head_shifts": list(self.shifts),
        }  # fmt: skip

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Head | None:
        """From :meth:`to_json`, of an untrusted file, or of one of before.

        Raises:
            ValueError: for something else.
        """
        if fields["head"] is None:
            return None
        columns, scales, shifts = (fields.get(f"head_{name}", ()) for name in ("columns", "scales", "shifts"))
        if not isinstance(fields["head"], str) or not len(columns) == len(scales) == len(shifts):
            raise ValueError("the last linear layer is of another form.")
        return cls(
            fields["head"], min(-1, int(fields.get("head_call", -1))), bool(fields["head_is_output"]), tuple(map(int, columns)),
            tuple(map(float, scales)), tuple(map(float, shifts)),
        )  # fmt: skip

    def weights(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Weight and bias of the logits from those of the layer."""
        if not self.columns:
            return weight, bias
        place = torch.tensor(self.columns, device=weight.device)
        scale = torch.tensor(self.scales, dtype=weight.dtype, device=weight.device)
        shift = torch.tensor(self.shifts, dtype=weight.dtype, device=weight.device)
        scale = torch.where(place < 0, 0.0, scale)
        place = place.clamp(min=0)
        return scale[:, None] * weight[place], scale * bias[place] + shift


def find_head(calls: Sequence[Call], logits: Tensor, mask: Tensor | None) -> Head | None:
    """The last linear layer among the calls of one forward pass.

    It is the last one whose output is what the network returns; or that up to its shape; or of which a function of each number (softmax,
    sigmoid, exp and others), factors and shifts of its columns, or one position or the mean over positions is.

    Args:
        calls: of all modules.
        logits: what the network returned.
        mask: of padding.
    """
    linear = [call for call in calls if isinstance(call.module, nn.Linear)]
    for call in reversed(linear):
        if call.output.shape == logits.shape and torch.equal(call.output, logits):
            return Head(call.name, _number(call, linear))
    one_row_each = [call for call in linear if call.output.shape[0] == logits.shape[0]]
    for call in reversed(one_row_each):
        if call.output.numel() == logits.numel() and torch.equal(call.output.flatten(), logits.flatten()):
            return Head(call.name, _number(call, linear))
    for call in reversed(one_row_each):
        if call.output.numel() == logits.numel() and _is_function(call, logits):
            return Head(call.name, _number(call, linear), is_output=False)
    for call in reversed(one_row_each):
        if call.output.dim() == 2 and logits.dim() <= 2:
            found = _columns(call.output.double(), logits.reshape(len(logits), -1).double())
            if found is not None:
                return Head(call.name, _number(call, linear), True, *found)
    same = [call for call in linear if call.output.shape[-1:] == logits.shape[-1:]]
    if same and _picked(same[-1].output, logits, mask):
        return Head(same[-1].name, -1)
    return None


def _number(call: Call, linear: Sequence[Call]) -> int:
    own = [each is call for each in linear if each.name == call.name]
    return own.index(True) - len(own)


def _is_function(call: Call, logits: Tensor) -> bool:
    """Whether the network returns the softmax, or a function of each number, of a layer's output."""
    assert isinstance(call.module, nn.Linear)
    values = call.output.float()
    logits = logits.float().reshape(values.shape)
    functions = _OF_NUMBERS if values.shape[-1] < 2 else (*_OF_ROWS, *_OF_NUMBERS)
    if call.module.out_features < call.module.in_features:
        functions += _OF_FEW
    return any(torch.allclose(function(values), logits, rtol=1e-4, atol=1e-5) for function in functions)


def _columns(values: Tensor, logits: Tensor) -> tuple[tuple[int, ...], tuple[float, ...], tuple[float, ...]] | None:
    """The column, the factor and the shift that give each logit; None where there are none."""
    rows, width = values.shape
    if rows < _FEWEST_ROWS or not (torch.isfinite(values).all() and torch.isfinite(logits).all()):
        return None
    if logits.shape[1] != width and max(width, logits.shape[1]) > _WIDEST:
        return None
    places, scales, shifts = [], [], []
    centered = values - values.mean(0)
    spread = centered.square().sum(0)
    for j in range(logits.shape[1]):
        target = logits[:, j]
        rest = target - target.mean()
        if float(rest.abs().max()) <= 1e-6 * max(float(target.abs().max()), 1e-6):
            places, scales, shifts = [*places, -1], [*scales, 0.0], [*shifts, float(target.mean())]
            continue
        candidates = [j] if width == logits.shape[1] else range(width)
        for k in candidates:
            scale = float((centered[:, k] * rest).sum() / spread[k]) if float(spread[k]) > 0 else 0.0
            if float((rest - scale * centered[:, k]).abs().max()) <= 1e-4 * float(rest.square().mean().sqrt()):
                places, scales = [*places, k], [*scales, scale]
                shifts = [*shifts, float(target.mean() - scale * values[:, k].mean())]
                break
        else:
            return None
    return (tuple(places), tuple(scales), tuple(shifts)) if any(place >= 0 for place in places) else None


def _picked(values: Tensor, logits: Tensor, mask: Tensor | None) -> bool:
    """Whether the network returns one position, or the mean over positions, of the outputs ``(n, ..., C)`` of a layer."""
    if values.dim() <= 2 or logits.dim() != 2 or len(values) != len(logits):
        return False
    positions = values.flatten(1, -2)
    if (positions == logits.unsqueeze(1)).all(-1).any(1).all():
        return True
    return values.dim() == 3 and torch.allclose(pool(values, mask).float(), logits.float(), atol=1e-4)
