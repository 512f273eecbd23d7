"""Dequantization: noise that turns integers or lattice values into continuous ones, and a likelihood bound for them."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pushforward.errors import ConfigError, KindError
from pushforward.likelihood import REAL, UNIT, Counting, Kind, Measure, Mixed, Support
from pushforward.numerics import Noise, sum_event, uniform_like
from pushforward.numerics.checks import check_indices, check_integer, is_integer
from pushforward.registry import register
from pushforward.transforms.base import Shape, Step, Transform
from pushforward.transforms.coupling.image import ImageCoupling
from pushforward.transforms.transformers.affine import AffineTransformer
from pushforward.transforms.transformers.base import Transformer
from pushforward.transforms.validation import image_shape, leaves, per_feature, vector_width

__all__ = ["LatticeDequantize", "UniformDequantize", "VariationalDequantize"]


@register("transforms")
class UniformDequantize(Transform):
    """z = (x + u) / levels with u uniform in [0, 1): integers 0, ..., levels - 1 to (0, 1).

    The probability of x is the integral of the density over its cell, so by Jensen's inequality
    log P(x) >= E log p(z) - sum log levels (Theis et al. 2016, sec. 3.1): the contribution is -sum log levels, a lower
    bound, and a density on Lebesgue(D) becomes a probability on Counting(D). ``decode`` is floor(levels z).

    An x that is not an integer or is out of range has probability zero: the contribution of its row is -inf. u is at least a
    few rounding units away from 0 and 1, so that ``decode(encode(x).z)`` is x; in float32 for up to a million levels.

    Args:
        features: event shape.
        levels: number of integer values, one for all or a tuple that broadcasts to the event shape.

    Raises:
        ConfigError: if levels are not positive integers.

    Example:
        >>> import torch
        >>> from pushforward.transforms import UniformDequantize
        >>> pixels = UniformDequantize(2, levels=256)
        >>> step = pixels.encode(torch.tensor([[0.0, 255.0]]))
        >>> pixels.decode(step.z), step.contribution               # -2 log 256
        (tensor([[  0., 255.]]), tensor([-11.0904]))
    """

    codomain = UNIT
    kind = Kind.LOWER_BOUND
    autoregressive_order = "any"
    count: Tensor

    def __init__(self, features: int | Shape, levels: int | tuple = 256) -> None:
        super().__init__(features)
        flat = leaves(levels)
        if not all(is_integer(count) and count >= 1 for count in flat):
            raise ConfigError(f"levels must be positive integers; got {levels!r}.")
        self.features, self.levels = features, levels if isinstance(levels, (tuple, list)) else int(levels)
        self.register_buffer("count", per_feature(levels, self.in_shape, "levels"))
        self.domain = Support(0.0, float(max(flat) - 1))

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """(x + u) / levels."""
        z, terms = self.encode_terms(x, context, noise=noise)
        return Step(z, sum_event(terms, len(self.in_shape)))

    def encode_terms(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> tuple[Tensor, Tensor]:
        """As ``encode``, with -log levels of each coordinate; -inf where x is not an integer in range."""
        x = x.to(torch.promote_types(self.count.dtype, x.dtype))  # float64 coordinates stay float64
        count = self.count.to(x.dtype)
        whole = torch.floor(torch.minimum(x.clamp(min=0), count - 1))
        eps = torch.finfo(x.dtype).eps
        edge = torch.clamp(eps * count, max=0.25)  # bfloat16 has no digits for u beside 128 and more
        u = torch.clamp(uniform_like(x, len(self.in_shape), noise), edge, 1 - edge)
        return torch.clamp((whole + u) / count, max=1 - eps / 2), torch.where(whole == x, -count.log(), -math.inf)

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """floor(levels z), within 0, ..., levels - 1."""
        return torch.minimum(torch.floor(z * self.count).clamp(min=0), self.count - 1)

    def measure(self, latent: Measure) -> Measure:
        """Lebesgue(D) becomes Counting(D); an extended measure stays as it is.

        Raises:
            KindError: for any other latent measure.
        """
        if latent.name == "Extended":
            return latent
        _require_lebesgue(latent, "UniformDequantize")
        return Counting(latent.dim)


@register("transforms")
class LatticeDequantize(Transform):
    """z = x + step u, u uniform in [0, 1), in columns whose values lie on a lattice origin + step * integer.

    The other columns are unchanged. The probability of a lattice point is the integral over its cell, so
    log P(k) >= E log p(z) + log step (Jensen): the contribution is sum log step over the columns, a lower bound, and
    these columns have a counting measure. ``decode`` rounds down to the lattice.

    A value off the lattice is scored as the lattice point below it, but a value less than a thousandth of a step (or less
    than rounding) below a point is scored as that point. u is at least a few rounding units away from 0 and 1.

    Args:
        features: width D of the table.
        columns: indices of the lattice columns; () makes the transform the identity, and EXACT.
        steps: positive lattice spacing, one number or one for each of ``columns``.
        origins: a point of the lattice, one number or one for each of ``columns``.

    Raises:
        ConfigError: for indices out of range or repeated, or spacings that are not positive.

    Example:
        >>> import torch
        >>> from pushforward.transforms import LatticeDequantize
        >>> ages = LatticeDequantize(2, columns=(1,), steps=1.0)
        >>> ages.decode(ages.encode(torch.tensor([[0.25, 41.0]])).z)
        tensor([[ 0.2500, 41.0000]])
    """

    kind = Kind.LOWER_BOUND
    domain = REAL
    autoregressive_order = "any"
    lattice: Tensor
    step: Tensor
    origin: Tensor

    def __init__(
        self,
        features: int | Shape,
        columns: tuple[int, ...],
        steps: float | tuple[float, ...] = 1.0,
        origins: float | tuple[float, ...] = 0.0,
    ) -> None:
        super().__init__(features)
        self.features, self.steps, self.origins = features, steps, origins
        width = vector_width(features, "LatticeDequantize")
        self.columns = columns = check_indices("columns", columns, width)
        if not columns:
            self.kind = Kind.EXACT
        chosen = set(columns)
        self.register_buffer("lattice", torch.tensor([column in chosen for column in range(width)]))
        for name, values, other in (("step", steps, 1.0), ("origin", origins, 0.0)):
            per_feature(values, (len(columns),), f"{name}s")  # checks them
            if name == "step" and not all(step >= torch.finfo().tiny for step in leaves(steps)):
                raise ConfigError(f"steps must be positive numbers of {torch.get_default_dtype()}; got {steps!r}.")
            full = np.full(
                width, other
            )  # a file is read without memory, where index_copy would import torch's compiler
            full[list(columns)] = values
            self.register_buffer(name, torch.tensor(full.tolist()))

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """Round down to the lattice, then add a uniform part of a step."""
        z, terms = self.encode_terms(x, context, noise=noise)
        return Step(z, terms.sum(-1))

    def encode_terms(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> tuple[Tensor, Tensor]:
        """As ``encode``, with log step of each lattice coordinate."""
        eps = torch.finfo(self.step.dtype).eps
        steps = (x - self.origin) / self.step
        rounding = eps * (steps.abs() + (self.origin / self.step).abs() + 1)
        k = torch.floor(steps + torch.clamp(1e-3 + 2 * rounding, max=0.25))
        snapped = torch.where(self.lattice, self.origin + k * self.step, x)
        edge = (4 * rounding).clamp(max=0.25)
        u = torch.clamp(uniform_like(snapped, 1, noise), edge, 1 - edge)
        z = torch.where(self.lattice, self.origin + (k + u) * self.step, x)
        return z, self.step.log().expand_as(x)

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """The lattice point at or below, in the lattice columns."""
        k = torch.floor((z - self.origin) / self.step)
        return torch.where(self.lattice, self.origin + k * self.step, z)

    def measure(self, latent: Measure) -> Measure:
        """Lebesgue(D) becomes Mixed(D - m, m) for m lattice columns.

        Raises:
            KindError: for a latent density on anything but Lebesgue(D).
        """
        _require_lebesgue(latent, "LatticeDequantize")
        return Mixed(latent.dim - len(self.columns), len(self.columns))


@register("transforms")
class VariationalDequantize(Transform):
    """z = (x + u) / levels with u from a learned flow q(u | x) on (0, 1) that reads the image (Ho et al. 2019, sec. 3.1).

    log P(x) >= E_q [ log p(z) - log q(u | x) ] - sum log levels (eq. 12): the contribution is -log q(u | x) - sum log levels, a
    lower bound, on Counting(D). u is the sigmoid of a logistic variable after couplings given x: first one that transforms
    every noise coordinate, then checkerboard couplings. They start as the identity, so u starts uniform.

    An x that is not an integer in 0, ..., levels - 1 has the contribution -inf. ``decode`` is floor(levels z).

    Args:
        features: (channels, height, width).
        levels: number of integer values.
        couplings: number of checkerboard couplings.
        hidden: widths of the networks' hidden layers.
        transformer: transformer of the couplings; affine by default.

    Raises:
        ConfigError: if levels is not a positive integer, or the event is not an image.

    Example:
        >>> import torch
        >>> from pushforward.transforms import VariationalDequantize
        >>> pixels = VariationalDequantize((1, 1, 2), levels=256, hidden=(8,))
        >>> step = pixels.encode(torch.tensor([[[0.0, 255.0]]]))
        >>> pixels.decode(step.z.detach()), step.contribution.detach()         # -2 log 256 before training
        (tensor([[[  0., 255.]]]), tensor(-11.0904))
    """

    codomain = UNIT
    kind = Kind.LOWER_BOUND

    def __init__(
        self,
        features: Shape,
        levels: int = 256,
        *,
        couplings: int = 2,
        hidden: tuple[int, ...] = (32, 32),
        transformer: Transformer | None = None,
    ) -> None:
        super().__init__(features)
        channels, height, width = image_shape(features, "VariationalDequantize")
        check_integer("levels", levels)
        self.features, self.levels, self.hidden = features, levels, hidden
        self.couplings, self.transformer = check_integer("couplings", couplings, 0), transformer or AffineTransformer()
        self.uniform = UniformDequantize(features, levels)
        self.domain = self.uniform.domain
        # Couplings of (image, noise) that transform only the noise.
        both = (2 * channels, height, width)
        flow = [ImageCoupling(both, self.transformer, keep=channels, hidden=hidden)]
        flow += [
            ImageCoupling(
                both, self.transformer, mask="checkerboard", keep=channels, flip=k % 2 == 1, hidden=hidden
            )
            for k in range(couplings)
        ]  # fmt: skip
        self.flow = torch.nn.ModuleList(flow)

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """(x + u) / levels, with u from the flow."""
        count = self.uniform.count
        x = x.to(torch.promote_types(count.dtype, x.dtype))
        count = count.to(x.dtype)
        whole = torch.floor(torch.minimum(x.clamp(min=0), count - 1))
        edge = torch.finfo(x.dtype).eps
        start = torch.clamp(uniform_like(x, 3, noise), edge, 1 - edge)
        logit = torch.log(start) - torch.log1p(-start)
        log_q = sum_event(F.logsigmoid(logit) + F.logsigmoid(-logit), 3)
        state = torch.cat((2 * whole / count - 1, logit), -3)
        for part in self.flow:
            state, log_det = part(state)
            log_q = log_q - log_det
        logit = state[..., self.in_shape[0] :, :, :]
        log_q = log_q - sum_event(F.logsigmoid(logit) + F.logsigmoid(-logit), 3)
        u = torch.clamp(torch.sigmoid(logit), edge * count, 1 - edge * count)
        legal = (whole == x).flatten(-3).all(-1)
        contribution = -log_q - sum_event(count.log(), 3)
        return Step((whole + u) / count, torch.where(legal, contribution, -torch.inf))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """floor(levels z), within 0, ..., levels - 1."""
        return self.uniform.decode(z)

    def measure(self, latent: Measure) -> Measure:
        """Lebesgue(D) becomes Counting(D).

        Raises:
            KindError: for a latent density on anything but Lebesgue(D).
        """
        return self.uniform.measure(latent)


def _require_lebesgue(latent: Measure, owner: str) -> None:
    if latent.name != "Lebesgue":
        raise KindError(f"{owner} needs a latent density on Lebesgue(D); the rest of the chain is on {latent}.")
