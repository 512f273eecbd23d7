"""A fixed or learned shift and scale of each coordinate."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from pushforward.errors import ConfigError
from pushforward.likelihood import Support
from pushforward.numerics.checks import check_positive
from pushforward.registry import register
from pushforward.transforms.base import Shape
from pushforward.transforms.elementwise.functions import Elementwise
from pushforward.transforms.validation import PerFeature, leaves, per_feature

__all__ = ["Affine"]


@register("transforms")
class Affine(Elementwise):
    """z = scale x + shift, coordinate by coordinate; contribution sum log abs scale.

    Args:
        features: event shape.
        shift: a number, or a tuple that broadcasts to the event shape.
        scale: a number, or a tuple that broadcasts to the event shape; not zero. A negative scale keeps its sign.
        trainable: learn the shift and log abs scale.
        learning_rate_multiplier: log abs scale is this number times its parameter, so that Adam, whose steps do not depend
            on the size of the gradient, changes it this many times faster. The parameter is called ``log_factor`` if the
            multiplier is 1 and ``unit_log_factor`` otherwise, so that one cannot be loaded as the other.

    Raises:
        ConfigError: for a scale that is zero or infinite (in the type of the weights too), a tuple that does not fit, or a multiplier
            that is not positive.

    Example:
        >>> import torch
        >>> from pushforward.transforms import Affine
        >>> Affine(2, shift=1.0, scale=(2.0, 4.0)).encode(torch.tensor([[1.0, 1.0]]))[:2]
        (tensor([[3., 5.]]), tensor([2.0794]))
    """

    offset: Tensor
    log_factor: Tensor
    unit_log_factor: Tensor
    factor: Tensor
    sign: Tensor

    def __init__(
        self,
        features: int | Shape,
        shift: PerFeature = 0.0,
        scale: PerFeature = 1.0,
        trainable: bool = False,
        learning_rate_multiplier: float = 1.0,
    ) -> None:
        super().__init__(features)
        self.shift, self.scale, self.trainable = shift, scale, trainable
        self.learning_rate_multiplier = learning_rate_multiplier
        check_positive("learning_rate_multiplier", learning_rate_multiplier)
        factor = per_feature(scale, self.in_shape, "scale")
        offset = per_feature(shift, self.in_shape, "shift")
        if any(abs(value) < torch.finfo(factor.dtype).tiny for value in leaves(scale)):
            raise ConfigError(
                f"scale must not be zero, or round to it in {factor.dtype}, because the transform would have no inverse; got "
                f"scale={scale!r}."
            )
        self._counts = not trainable and all(abs(value) == 1 for value in leaves(scale))
        if trainable:
            self.offset = nn.Parameter(offset)
            name = "log_factor" if learning_rate_multiplier == 1 else "unit_log_factor"
            self.register_parameter(name, nn.Parameter(factor.abs().log() / learning_rate_multiplier))
            self.register_buffer("sign", factor.sign())
        else:
            self.register_buffer("offset", offset)
            self.register_buffer("factor", factor)

    def map_support(self, box: Support) -> Support | None:
        """The box with both ends of each coordinate transformed; of images with several scales or shifts the intersection."""
        if self.trainable:
            return None
        scales, shifts = leaves(self.scale), leaves(self.shift)
        if len(self.in_shape) == 1 and not box.within:
            width = self.in_shape[0]
            pairs = box.ends or ((box.low, box.high),) * width
            scales, shifts = (values if len(values) == width else values * width for values in (scales, shifts))
            moved = [
                sorted((a * low + b, a * high + b)) for (low, high), a, b in zip(pairs, scales, shifts, strict=True)
            ]
            return Support.joined([(Support(low, high), 1) for low, high in moved])
        ends = [sorted((a * box.low + b, a * box.high + b)) for a, b in itertools.product(scales, shifts)]
        low, high = max(low for low, _ in ends), min(high for _, high in ends)
        ordered = scales[0] > 0 and len(ends) == 1
        if box.ends or low > high or (box.within and not ordered):
            return Support(min(low, high), max(low, high), f"{box.within or 'bounds'} before Affine")
        return Support(low, high, box.within)

    def function(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """scale x + shift."""
        factor, log_factor = self._factor()
        return x * factor + self.offset, log_factor.expand_as(x)

    def inverse_function(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """(z - shift) / scale."""
        factor, log_factor = self._factor()
        return (z - self.offset) / factor, log_factor.expand_as(z)

    def log_scale(self) -> Tensor:
        """Log abs scale, in nats; broadcasts to the event shape."""
        if self.trainable:
            multiplier = self.learning_rate_multiplier
            return self.log_factor if multiplier == 1 else multiplier * self.unit_log_factor
        return self.factor.abs().log()

    def _factor(self) -> tuple[Tensor, Tensor]:
        log_scale = self.log_scale()
        return self.sign * log_scale.exp() if self.trainable else self.factor, log_scale
