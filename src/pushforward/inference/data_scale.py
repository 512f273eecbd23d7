"""`DataScale`: fixed scaling of simulated data, so that heavy tails and large ranges do not hide what networks need."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["DataScale"]

_RANGE, _KURTOSIS = 50.0, 15.0
_ROUNDING = 1e-12
"""Range of a column, relative to its largest number, that is no more than what sums in float64 lose by rounding."""

_SINGLE = 1e-6
"""Difference of two equal numbers, relative to them, of which one was rounded to float32."""


class DataScale(nn.Module):
    """A monotone function of each column of the data, found from simulations.

    Positive columns whose 99 % quantile is more than 50 times their median, or whose median is more than 50 times their
    1 % quantile, become logarithms. Other columns with a kurtosis above 15 become asinh of the robustly standardized value.
    The rest stays as it is. Then every column has mean 0 and variance 1; one that is constant but for rounding keeps its units,
    so that an observation in float32 is not far away.

    The function does not depend on the parameters, so it does not change a posterior.

    Args:
        width: number of columns.
    """

    logarithm: Tensor
    tail: Tensor
    constant: Tensor
    center: Tensor
    spread: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        for name in ("logarithm", "tail", "constant"):
            self.register_buffer(name, torch.zeros(width, dtype=torch.bool))
        for name, value in (("center", 0.0), ("spread", 1.0), ("mean", 0.0), ("scale", 1.0)):
            self.register_buffer(name, torch.full((width,), value, dtype=torch.float64))

    @classmethod
    def of(cls, x: Tensor, set_width: int | None = None) -> DataScale:
        """The scaling for simulations ``(n, width)``.

        Args:
            x: the simulations.
            set_width: for sets of rows with so many numbers: all rows of a set have the same scaling, so that a function of the set
                does not depend on their order.
        """
        if set_width is not None and x.shape[1] % set_width == 0:
            return cls.of(x.reshape(-1, set_width)).repeated(x.shape[1] // set_width)
        result = cls(x.shape[1])
        rows = x.double()
        if len(rows) > 20_000:
            rows = rows[torch.arange(20_000) * len(rows) // 20_000]
        low, middle, high = torch.quantile(rows, torch.tensor([0.01, 0.5, 0.99], dtype=torch.float64), dim=0)
        quarter = torch.quantile(rows, torch.tensor([0.25, 0.75], dtype=torch.float64), dim=0)
        least, most = rows.aminmax(dim=0)
        constant = most - least <= _ROUNDING * torch.maximum(least.abs(), most.abs())
        result.constant.copy_(constant)
        deviation = torch.where(constant, 0.0, rows - rows.mean(0))
        variance = deviation.square().mean(0)
        kurtosis = deviation.pow(4).mean(0) / variance.clamp(min=1e-300).square()
        wide = (high > _RANGE * middle) | (middle > _RANGE * low)
        result.logarithm.copy_((x > 0).all(0) & wide)  # of all rows: one that is not positive has no logarithm
        result.tail.copy_(~result.logarithm & (kurtosis > _KURTOSIS))
        result.center.copy_(middle)
        iqr = torch.where(constant, 0.0, (quarter[1] - quarter[0]) / 1.349)
        result.spread.copy_(torch.where(iqr > 0, iqr, torch.where(variance > 0, variance.sqrt(), 1.0)))
        shaped = result._shape(rows)
        spread = torch.where(constant, 0.0, shaped.std(0, correction=0))
        result.mean.copy_(shaped.mean(0))
        result.scale.copy_(torch.where(spread > 0, spread, 1.0))
        return result

    def repeated(self, times: int) -> DataScale:
        """The scaling of so many rows, one after the other."""
        result = DataScale(times * len(self.mean))
        for name, buffer in self.named_buffers():
            getattr(result, name).copy_(buffer.repeat(times))
        return result

    def forward(self, x: Tensor) -> Tensor:
        """Scaled data, ``(*batch, width)``, float32."""
        return ((self._shape(x.double()) - self.mean) / self.scale).float()

    def unlike(self, x: Tensor) -> Tensor:
        """Where data ``(*batch, width)`` differ from the one number that all simulations of a constant column have, beyond rounding."""
        return self.constant & ((x.double() - self.mean).abs() > _SINGLE * self.mean.abs())

    def log_slope(self, x: Tensor) -> Tensor:
        """Log of the derivative of the scaling at data ``(*batch, width)``, float64."""
        x = x.double()
        logged = -torch.where(self.logarithm, x, 1.0).clamp(min=1e-300).log()
        tailed = -torch.hypot(x - self.center, self.spread).log()
        return torch.where(self.logarithm, logged, torch.where(self.tail, tailed, 0.0)) - self.scale.log()

    def inverse(self, x: Tensor) -> Tensor:
        """The data of scaled data ``(*batch, width)``, float64."""
        shaped = x.double() * self.scale + self.mean
        tailed = torch.sinh(shaped) * self.spread + self.center
        return torch.where(self.logarithm, shaped.exp(), torch.where(self.tail, tailed, shaped))

    def _shape(self, x: Tensor) -> Tensor:
        logged = torch.where(self.logarithm, x, 1.0).clamp(min=1e-300).log()
        tailed = torch.asinh((x - self.center) / self.spread)
        return torch.where(self.logarithm, logged, torch.where(self.tail, tailed, x))
