"""Missing values as a generative augmentation: a missing value is drawn, and its log-density is subtracted."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from pushforward.errors import ConfigError, InputError
from pushforward.likelihood import Kind
from pushforward.numerics import Noise, normal_like
from pushforward.numerics.checks import check_indices
from pushforward.registry import register
from pushforward.transforms.base import Step, Transform
from pushforward.transforms.validation import leaves, per_feature, vector_width

__all__ = ["AugmentMissing"]


@register("transforms")
class AugmentMissing(Transform):
    """Replace the value of a missing cell by a draw v ~ q = N(mean, scale^2) and add -log q(v).

    Each of ``columns`` has an indicator coordinate (1 where its value is missing). For such a row

        log p(observed, missing) >= E_q [ log p(observed, missing, v) - log q(v) ],

    the augmentation surjection of SurVAE flows (Nielsen et al. 2020, sec. 3.2): kind LOWER_BOUND. Other cells are
    unchanged. ``initialize`` sets ``mean`` and ``scale`` to those of the observed values.

    A dequantization of the same column that follows adds log step, which is right only for an observed value: give its
    spacing as ``steps``, and log step is subtracted again for a missing one.

    Args:
        features: number of coordinates D, values and indicators together.
        columns: coordinates whose values may be missing.
        indicators: their indicator coordinates, in the same order.
        steps: spacing of the lattice of each column that is dequantized next; 1 for integers and for continuous values.

    Raises:
        ConfigError: if columns and indicators differ in length, an index is out of range, or a step is not positive.

    Example:
        >>> import torch
        >>> augment = AugmentMissing(2, columns=(0,), indicators=(1,))
        >>> step = augment.encode(torch.tensor([[5.0, 0.0], [0.0, 1.0]]))
        >>> step.z[0], step.contribution[0]
        (tensor([5., 0.]), tensor(0.))
    """

    supports_float64 = False
    kind = Kind.LOWER_BOUND
    autoregressive_order = "any"
    _counts = True
    mean: Tensor
    scale: Tensor
    initialized: Tensor
    column_index: Tensor
    indicator_index: Tensor

    def __init__(
        self,
        features: int,
        columns: tuple[int, ...],
        indicators: tuple[int, ...],
        steps: float | tuple[float, ...] = 1.0,
    ) -> None:
        super().__init__(features)
        width = vector_width(features, "AugmentMissing")
        columns, indicators = check_indices("columns", columns, width), check_indices("indicators", indicators, width)
        if len(columns) != len(indicators) or not columns:
            raise ConfigError(
                f"columns and indicators must have the same length of at least 1; got {len(columns)} and {len(indicators)}."
            )
        if {*columns} & {*indicators}:
            raise ConfigError(
                f"columns and indicators must be distinct indices in 0, ..., {width - 1}; got {columns!r} and {indicators!r}."
            )
        per_feature(steps, (len(columns),), "steps")  # checks them
        if not all(step >= torch.finfo().tiny for step in leaves(steps)):
            raise ConfigError(f"steps must be positive numbers of {torch.get_default_dtype()}; got {steps!r}.")
        self.features, self.columns, self.indicators, self.steps = features, columns, indicators, steps
        self._log_steps = np.broadcast_to(np.log(np.asarray(steps, dtype=np.float64)), len(columns)).tolist()
        self.register_buffer("column_index", torch.tensor(columns, dtype=torch.int64))
        self.register_buffer("indicator_index", torch.tensor(indicators, dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(len(columns)))
        self.register_buffer("scale", torch.ones(len(columns)))
        self.register_buffer("initialized", torch.tensor(False))

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """Draw the missing values."""
        z, terms = self.encode_terms(x, context, noise=noise)
        return Step(z, terms.sum(-1))

    def encode_terms(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> tuple[Tensor, Tensor]:
        """As ``encode``, with the contribution of each coordinate."""
        e = normal_like(x, 1, noise).index_select(-1, self.column_index)
        missing = x.index_select(-1, self.indicator_index) > 0.5
        values = torch.where(missing, self.mean + self.scale * e, x.index_select(-1, self.column_index))
        log_q = -0.5 * e.square() - 0.5 * math.log(2 * math.pi) - torch.log(self.scale)
        if any(self._log_steps):
            log_q = log_q + log_q.new_tensor(self._log_steps)
        terms = torch.zeros_like(x).index_copy(-1, self.column_index, torch.where(missing, -log_q, 0.0))
        return x.index_copy(-1, self.column_index, values), terms

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """The identity: the indicator says which values to ignore."""
        return z

    def initialize(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Set mean and scale from the observed values of each column, unless they are set; return z.

        Raises:
            InputError: if there is no row.
        """
        if not self.initialized:
            rows = x.reshape(-1, *self.in_shape)
            if not len(rows):
                raise InputError("AugmentMissing.initialize needs at least one row.")
            seen = rows.index_select(-1, self.indicator_index) <= 0.5
            observed = seen.double()
            given = rows.index_select(-1, self.column_index)
            values = torch.where(seen, given.double(), 0.0)
            count = observed.sum(0).clamp_min(1)
            mean = (values * observed).sum(0) / count
            scale = (((values - mean).square() * observed).sum(0) / count).sqrt()
            # Rounding of the mean gives a constant column a tiny deviation, so equality is tested directly.
            varies = torch.where(seen, given, -math.inf).amax(0) > torch.where(seen, given, math.inf).amin(0)
            self.mean.copy_(mean)
            self.scale.copy_(torch.where(varies & (scale > 0), scale, 1.0))
            self.initialized.fill_(True)
        return self.encode(x, context, noise=noise).z
