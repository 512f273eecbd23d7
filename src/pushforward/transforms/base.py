"""`Transform`, the interface of everything between data and base distribution, and `Step`, the result of `encode`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple, final

import torch
from torch import Tensor, nn

from pushforward.errors import ConfigError, InputError, KindError
from pushforward.likelihood import REAL, Kind, Measure, Support
from pushforward.numerics import Noise
from pushforward.numerics.checks import is_integer

__all__ = ["Shape", "Step", "Transform", "as_shape", "check_context", "outside", "within"]


Shape = tuple[int, ...]


def as_shape(features: int | Shape) -> Shape:
    """The event shape that a user means by ``features``: a width, or a shape such as (channels, height, width).

    Raises:
        ConfigError: if it is not made of positive integers.
    """
    shape = tuple(features) if isinstance(features, (tuple, list)) else (features,)
    if not all(is_integer(size) and size >= 1 for size in shape):
        raise ConfigError(f"features must be a positive integer or a tuple of them; got {features!r}.")
    return tuple(int(size) for size in shape)


class Step(NamedTuple):
    """One step from data toward noise.

    Attributes:
        z: what the transform made of x, shape ``(*batch, *out_shape)``.
        contribution: what it adds to the log-likelihood, nats, shape ``batch``; for a bijection log abs det dz/dx.
        residual: squared distance of x to the transform's image, shape ``batch``, for transforms onto a manifold.
        stderr: standard error of the contribution, shape ``batch``, for stochastic contributions.
    """

    z: Tensor
    contribution: Tensor
    residual: Tensor | None = None
    stderr: Tensor | None = None

    def then(self, after: Step) -> Step:
        """This step and the one after it as one: contributions, residuals and squared standard errors add."""
        residual, stderr = after.residual, after.stderr
        if self.residual is not None:
            residual = self.residual if residual is None else self.residual + residual
        if self.stderr is not None:
            stderr = self.stderr if stderr is None else torch.hypot(self.stderr, stderr)
        return Step(after.z, self.contribution + after.contribution, residual, stderr)


class Transform(nn.Module, ABC):
    """Everything that sits between data and base: bijections, surjections, dequantization, injections.

    A new transform sets ``in_shape`` (and ``out_shape``, ``context``, ``domain``, ``codomain``, ``kind`` where the
    defaults do not fit) and writes two methods: :meth:`encode`, from data toward noise with its contribution to the
    log-likelihood, and :meth:`decode`, from noise toward data. All else is derived. Leading dimensions are batch.

    Contributions exist in one direction only, data to noise.
    """

    in_shape: Shape
    out_shape: Shape
    context: int = 0
    """Width of the context that the transform reads; 0 for none. Transforms without one ignore a context."""
    domain: Support | None = REAL
    """Where data may lie (outside, the contribution is -inf); None for transforms that keep any box, as a permutation."""
    codomain: Support | None = REAL
    """Where ``encode`` lands. The rest of the chain must have its mass there, else the likelihood is a lower bound."""
    kind: Kind = Kind.EXACT
    """What the contribution is of the true one."""
    autoregressive_order: tuple[int, ...] | str = "mixed"
    """How coordinates depend on each other: "any" (each on itself alone), the order of an autoregressive transform, or "mixed"
    (no order). Transforms that are not "mixed" have :meth:`encode_terms`."""
    valid_on_manifold: bool = False
    """Whether the contribution is also right for a density on a surface: for transforms that keep all lengths and leave 0 where it is
    (so a sphere about 0 is still one), and, with a :meth:`measure` of their own, transforms made for one surface."""
    many_to_one: bool = False
    """Whether several x of one size have the same z, as where a sign or an order is dropped; ``decode`` draws it anew."""
    has_rsample: bool = True
    """Whether ``decode`` carries gradients to the law of all that it draws; not where that is a sign, a place or an order."""
    angle_preserving: bool = False
    """Whether it stretches all directions at a point alike, so that dx -> dz is exp(contribution / coordinates) times an
    isometry: what :class:`~pushforward.transforms.ConformalEmbedding` is made of. Isometries are, with a contribution of 0."""
    supports_float64: bool = True
    """Whether float64 coordinates stay so beside float32 weights, and ``decode`` undoes ``encode`` to their rounding (networks see
    them in the weights' type). Not where the way back runs a network at other places, as in a sequence or an iteration."""
    encode_passes: int = 1
    """Sequential network passes of one encode; :attr:`decode_passes` likewise. They say which direction is fast."""
    decode_passes: int = 1

    def __init__(self, in_shape: int | Shape, out_shape: int | Shape | None = None) -> None:
        super().__init__()
        self.in_shape = as_shape(in_shape)
        self.out_shape = self.in_shape if out_shape is None else as_shape(out_shape)

    @abstractmethod
    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """Data to noise: ``(*batch, *in_shape)`` to a :class:`Step` with z of ``(*batch, *out_shape)``."""

    @abstractmethod
    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Noise to data: ``(*batch, *out_shape)`` to ``(*batch, *in_shape)``."""

    def decode_with_contribution(
        self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None
    ) -> tuple[Tensor, Tensor]:
        """x = decode(z), and the contribution that ``encode(x)`` would return. Override where both cost one pass."""
        x = self.decode(z, context, noise=noise)
        return x, self.encode(x, context, noise=noise).contribution

    def invert_with_graph(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Step]:
        """The x behind z, as a leaf that requires a gradient, and ``encode(x)`` with its graph: for reversible chains.

        Override where both can share a network pass.
        """
        with torch.no_grad():
            x = self.decode(z, context)
        x = x.detach().requires_grad_()
        return x, self.encode(x, context)

    def encode_terms(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> tuple[Tensor, Tensor]:
        """z, and the contribution of each coordinate, ``(*batch, *in_shape)``: the terms of the chain rule.

        Raises:
            KindError: for transforms that mix coordinates in no order.
        """
        raise KindError(f"{type(self).__name__} mixes coordinates in no order, so its contribution has no terms.")

    def measure(self, latent: Measure) -> Measure:
        """Measure of the data density, given the measure of the latent density.

        Raises:
            KindError: for a latent density on a surface, which a transform that stretches space would stretch otherwise.
        """
        if latent.name == "Manifold" and not self.valid_on_manifold:
            raise KindError(
                f"{type(self).__name__} stretches space, and its log-determinant is not that of a surface, so the density on "
                f"{latent} behind it would be wrong: put transforms that keep lengths there, or leave it out."
            )
        return latent

    def map_support(self, box: Support) -> Support | None:
        """A box that this transform makes of a box, at most as large as what it reaches from there; None if it makes none."""
        return box.reordered(type(self).__name__) if self.domain is None else None

    @property
    def bijective(self) -> bool:
        """Whether ``decode`` undoes ``encode`` and the contribution is the log-determinant of a square Jacobian."""
        return self.kind is Kind.EXACT and _size(self.in_shape) == _size(self.out_shape) and not self.many_to_one

    @property
    def invertible(self) -> bool:
        """Whether ``decode`` undoes ``encode``, even where the log-determinant is only estimated."""
        return self.bijective

    @property
    def estimators(self) -> list[Transform]:
        """The transforms in this one, or itself, that have several ways to their log-determinant (``set_log_det``)."""
        return [self] if hasattr(self, "set_log_det") else []

    def initialize(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Set state that depends on data (scaling, actnorm) from many training rows, and return their z."""
        return self.encode(x, context, noise=noise).z

    def refresh(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Set statistics that must belong to the current weights (batch norm) from the training rows; return z."""
        return self.encode(x, context, noise=noise).z

    @property
    def needs_refresh(self) -> bool:
        """Whether :meth:`refresh` is needed before evaluation."""
        return False

    @final
    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``encode`` as a plain pair (z, contribution), for ``torch.compile`` and ``torch.export``."""
        step = self.encode(x, context)
        return step.z, step.contribution

    @final
    def batch_shape(self, x: Tensor) -> torch.Size:
        """Leading dimensions of data ``x``."""
        return x.shape[: x.dim() - len(self.in_shape)]

    @final
    def zero_log_det(self, x: Tensor) -> Tensor:
        """A contribution of zero for data ``x``."""
        return x.new_zeros(self.batch_shape(x))


def check_context(context: Tensor | None, width: int, owner: str) -> None:
    """Refuse a missing or wrongly shaped context, or one that is no tensor.

    Raises:
        InputError: naming the owner and both widths.
    """
    if width and context is None:
        raise InputError(f"{owner} was built with context={width} and needs a context of shape (*batch, {width}).")
    if width and not isinstance(context, Tensor):
        raise InputError(f"{owner} reads a context that is a torch tensor; got {type(context).__name__}.")
    if width and context is not None and (context.dim() == 0 or context.shape[-1] != width):
        raise InputError(f"{owner} needs a context of width {width}; got shape {tuple(context.shape)}.")


def within(contribution: Tensor, x: Tensor, support: Support | None, dims: int) -> Tensor:
    """The contribution, and -inf for rows with a coordinate outside the support; shape ``batch``."""
    if support is None or support == REAL:
        return contribution
    return contribution + outside(x, support, dims)


def outside(x: Tensor, support: Support | None, dims: int) -> Tensor:
    """0 for rows whose coordinates all lie in the support, -inf for the others; shape ``batch``."""
    if support is None or support == REAL:
        return x.new_zeros(x.shape[: x.dim() - dims])
    inside = support.contains(x).flatten(x.dim() - dims).all(-1) if dims else support.contains(x)
    return torch.where(inside, 0.0, -math.inf).to(x.dtype)


def _size(shape: Shape) -> int:
    size = 1
    for length in shape:
        size *= length
    return size
