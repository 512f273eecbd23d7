"""Standardization with statistics of the training data, activation normalization, and batch normalization."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pushforward.errors import InputError, warn_caller
from pushforward.numerics import Noise, sum_event
from pushforward.numerics.checks import check_positive
from pushforward.registry import register
from pushforward.transforms.base import Shape, Step, Transform

__all__ = ["ActNorm", "BatchNorm", "Standardize", "fixed_statistics", "has_batch_norm", "moments"]


def moments(x: Tensor, shape: Shape, statistic: Shape) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over all rows, and over the positions where ``statistic`` has size 1, in float64.

    Args:
        x: ``(*batch, *shape)``, at least one row.
        shape: event shape.
        statistic: shape of the result, of the same length as ``shape``.

    Returns:
        Two tensors of shape ``statistic``. The deviation is that of the population, and exactly 0 where all values are equal.

    Raises:
        InputError: if there is no row.

    Warns:
        PushforwardWarning: for values that differ by less than float32 can tell; their deviation is 0 too.
    """
    rows = x.detach().reshape(-1, *shape)
    if rows.shape[0] == 0:
        raise InputError(
            "statistics of the training data need at least one row; got an empty batch. Pass the training rows."
        )
    dims = (0, *(i + 1 for i, size in enumerate(statistic) if size != shape[i]))
    precise = rows.double()
    mean = precise.mean(dims, keepdim=True)
    std = (precise - mean).square().mean(dims, keepdim=True).sqrt()
    # Rounding of the mean would give a constant column a tiny deviation, so equality is tested directly.
    constant = rows.amax(dims, keepdim=True) == rows.amin(dims, keepdim=True)
    varied = ~constant & (std >= torch.finfo(torch.float32).tiny)
    if tiny := int((~constant & ~varied).sum()):
        warn_caller(
            f"{tiny} of {std.numel()} coordinates vary by less than the smallest number of float32 (1e-38) and count as "
            "constant: choose another unit for them."
        )
    return mean.reshape(statistic), torch.where(varied, std, 0.0).reshape(statistic)


def standardized_limit(dtype: torch.dtype) -> float:
    """The largest number that :class:`Standardize` returns."""
    return torch.finfo(dtype).max ** 0.75


def quartiles(x: Tensor, shape: Shape, deviation: Tensor) -> tuple[Tensor, Tensor]:
    """Median and interquartile range / 1.349 over all rows, in float64; ``deviation`` where the range is 0."""
    ordered = x.detach().reshape(-1, *shape).double().sort(0).values
    last = ordered.shape[0] - 1
    low, middle, high = (ordered[round(fraction * last)] for fraction in (0.25, 0.5, 0.75))
    spread = (high - low) / 1.349
    return middle, torch.where(spread > 1e-6 * deviation, spread, deviation)


@register("transforms")
class Standardize(Transform):
    """z = (x - mean) / scale with the mean and standard deviation of each coordinate over the training rows.

    Contribution: -sum log scale. It is the identity until :meth:`initialize` is called. A constant column keeps scale 1.
    Values of z end at 8e28 (float32; 2e231 in float64), so that no later layer adds infinities of both signs: a row that far
    away has a low likelihood, and not NaN.

    Args:
        features: event shape.
        robust: use the median, and the interquartile range / 1.349 (the standard deviation of a normal) instead, so that a
            heavy tail cannot compress the bulk of the data. A coordinate with equal quartiles uses the standard deviation.

    Example:
        >>> import torch
        >>> from pushforward.transforms import Standardize
        >>> scaler = Standardize(1)
        >>> scaler.initialize(torch.tensor([[1.0], [3.0]]))
        tensor([[-1.],
                [ 1.]])
    """

    autoregressive_order = "any"
    mean: Tensor
    scale: Tensor
    initialized: Tensor

    def __init__(self, features: int | Shape, robust: bool = False) -> None:
        super().__init__(features)
        self.features, self.robust = features, robust
        self.register_buffer("mean", torch.zeros(self.in_shape))
        self.register_buffer("scale", torch.ones(self.in_shape))
        self.register_buffer("initialized", torch.tensor(False))

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """(x - mean) / scale."""
        contribution = -sum_event(self.scale.log(), len(self.in_shape))
        return Step(self._standardized(x), contribution.expand(self.batch_shape(x)))

    def encode_terms(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> tuple[Tensor, Tensor]:
        """As ``encode``, with -log scale of each coordinate."""
        return self._standardized(x), -self.scale.log().expand_as(x)

    def _standardized(self, x: Tensor) -> Tensor:
        z = (x - self.mean) / self.scale
        limit = standardized_limit(z.dtype)
        return z.clamp(-limit, limit)

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """scale z + mean."""
        return z * self.scale + self.mean

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Set mean and scale from all rows of x, unless they are set; return z.

        Raises:
            InputError: if there is no row.
        """
        if not self.initialized:
            mean, std = moments(x, self.in_shape, self.in_shape)
            if self.robust:
                mean, std = quartiles(x, self.in_shape, std)
            self.mean.copy_(mean)
            self.scale.copy_(torch.where(std > 0, std, 1.0))
            self.initialized.fill_(True)
        return self.encode(x).z


def per_channel(shape: Shape) -> Shape:
    """Shape of one number for each coordinate of a vector, or for each channel of an image (C, H, W)."""
    return (shape[0], 1, 1) if len(shape) == 3 else shape


@register("transforms")
class ActNorm(Transform):
    """z = (x - shift) exp(log_scale), one shift and scale for each coordinate, or each channel of an image (C, H, W).

    Contribution: sum log_scale, times H W for images. :meth:`initialize` sets both so that the z of the first training
    rows have mean 0 and variance 1; after that they are trained like other weights (Kingma and Dhariwal 2018, sec. 3.1).
    Before it is called the transform is the identity. A constant coordinate keeps scale 1.

    Args:
        features: event shape.

    Example:
        >>> import torch
        >>> from pushforward.transforms import ActNorm
        >>> norm = ActNorm(1)
        >>> norm.initialize(torch.tensor([[1.0], [3.0]]))
        tensor([[-1.],
                [ 1.]])
    """

    autoregressive_order = "any"
    initialized: Tensor

    def __init__(self, features: int | Shape) -> None:
        super().__init__(features)
        self.features = features
        self.shift = nn.Parameter(torch.zeros(per_channel(self.in_shape)))
        self.log_scale = nn.Parameter(torch.zeros(per_channel(self.in_shape)))
        self.register_buffer("initialized", torch.tensor(False))

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """(x - shift) exp(log_scale)."""
        contribution = sum_event(self.log_scale.expand(self.in_shape), len(self.in_shape))
        return Step(self.encode_terms(x)[0], contribution.expand(self.batch_shape(x)))

    def encode_terms(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> tuple[Tensor, Tensor]:
        """As ``encode``, with log_scale of each coordinate."""
        return (x - self.shift) * self.log_scale.exp(), self.log_scale.expand_as(x)

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """z exp(-log_scale) + shift."""
        # Dividing by the factor of encode keeps its rounding; exp(-log_scale) has a rounding of its own.
        return z / self.log_scale.exp() + self.shift

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Set shift and scale from the rows of x, unless they are set; return z.

        Raises:
            InputError: if there is no row.
        """
        if not self.initialized:
            mean, std = moments(x, self.in_shape, tuple(self.shift.shape))
            self.shift.copy_(mean)
            self.log_scale.copy_(-torch.where(std > 0, std, 1.0).log())
            self.initialized.fill_(True)
        return self.encode(x).z


@register("transforms")
class BatchNorm(Transform):
    """z = (x - mean) / sqrt(var + eps) exp(log_gamma) + beta, per coordinate, or per channel of an image (C, H, W).

    Contribution: sum (log_gamma - log(var + eps) / 2), times H W for images (Papamakarios et al. 2017, app. B).

    In training mode, mean and variance are those of the batch, with gradients. In evaluation mode they are those of the
    whole training set, which :meth:`refresh` writes into buffers. (Running averages belong to earlier weights and would
    give wrong likelihoods.) ``decode`` always uses the buffers, so the round trip holds in evaluation mode. A training batch of
    one row has no variance and is normalized with the buffers.

    Args:
        features: event shape.
        eps: added to the variance.

    Raises:
        ConfigError: if eps is not positive.

    Example:
        >>> import torch
        >>> from pushforward.transforms import BatchNorm
        >>> norm = BatchNorm(1, eps=1e-5).eval()
        >>> _ = norm.refresh(torch.tensor([[1.0], [3.0]]))
        >>> norm.encode(torch.tensor([[2.0]])).z
        tensor([[0.]], grad_fn=<AddBackward0>)
    """

    autoregressive_order = "any"
    mean: Tensor
    var: Tensor

    def __init__(self, features: int | Shape, eps: float = 1e-5) -> None:
        super().__init__(features)
        check_positive("eps", eps)
        self.features, self.eps = features, eps
        shape = per_channel(self.in_shape)
        self.log_gamma = nn.Parameter(torch.zeros(shape))
        self.beta = nn.Parameter(torch.zeros(shape))
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("var", torch.ones(shape))

    @property
    def needs_refresh(self) -> bool:
        """True: the buffers must match the current weights of the transforms before this one."""
        return True

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """Normalize with the batch's statistics in training mode, with the buffers in evaluation mode."""
        mean, slope = self._statistics(x)
        return self._normalize(x, mean, slope)

    def encode_terms(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> tuple[Tensor, Tensor]:
        """As ``encode``, with log dz/dx of each coordinate."""
        mean, slope = self._statistics(x)
        return self._normalize(x, mean, slope).z, slope.expand_as(x)

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Invert the normalization with the buffers."""
        return (z - self.beta) / self._slope().exp() + self.mean

    def decode_with_contribution(
        self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None
    ) -> tuple[Tensor, Tensor]:
        """x, and the contribution that encode has in evaluation mode."""
        x = self.decode(z)
        return x, self._normalize(x, self.mean, self._slope()).contribution

    @torch.no_grad()
    def refresh(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Set mean and variance from all training rows; return z under them.

        Raises:
            InputError: if there is no row.
        """
        mean, std = moments(x, self.in_shape, tuple(self.mean.shape))
        self.mean.copy_(mean)
        self.var.copy_(std.square())
        return self._normalize(x, self.mean, self._slope()).z

    def initialize(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """As :meth:`refresh`, so that the transforms after this one start from normalized data."""
        return self.refresh(x)

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean, and log dz/dx: of the batch in training mode, from the buffers in evaluation mode."""
        rows = x.reshape(-1, *self.in_shape)
        if not self.training or rows.shape[0] < 2:
            return self.mean, self._slope()
        dims = (0, *(i + 1 for i, size in enumerate(self.mean.shape) if size != self.in_shape[i]))
        mean = rows.mean(dims, keepdim=True)
        # In units of the largest deviation, so that squares do not overflow.
        unit = (rows - mean).detach().abs().amax(dims, keepdim=True).clamp(min=1.0)
        var = ((rows - mean) / unit).square().mean(dims, keepdim=True)
        log_std = torch.log(unit) + 0.5 * torch.log(var + self.eps / unit / unit)
        return mean.reshape(self.mean.shape), self.log_gamma - log_std.reshape(self.mean.shape)

    def _slope(self) -> Tensor:
        return self.log_gamma - 0.5 * torch.log(self.var + self.eps)

    def _normalize(self, x: Tensor, mean: Tensor, slope: Tensor) -> Step:
        contribution = sum_event(slope.expand(self.in_shape), len(self.in_shape))
        return Step((x - mean) * slope.exp() + self.beta, contribution.expand(self.batch_shape(x)))


def has_batch_norm(transform: Transform) -> bool:
    """Whether a transform, or a network in it, has batch normalization."""
    return any(isinstance(part, (BatchNorm, nn.BatchNorm2d)) for part in transform.modules())


@contextmanager
def fixed_statistics(transform: Transform) -> Iterator[None]:
    """Batch normalization in a transform uses the statistics that it has, also in training mode."""
    norms = [part for part in transform.modules() if isinstance(part, (BatchNorm, nn.BatchNorm2d)) and part.training]
    for part in norms:
        part.training = False
    try:
        yield
    finally:
        for part in norms:
            part.training = True
