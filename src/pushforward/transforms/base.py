"""`Transform`, the interface of all parts of a chain between data and base distribution, and `Step`, the result of `encode`."""

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

__all__ = [
    "Shape",
    "Step",
    "Transform",
    "as_shape",
    "check_context",
    "check_event",
    "named",
    "outside",
    "refuse_batch_statistics",
    "require_step",
    "within",
]


Shape = tuple[int, ...]


def as_shape(features: int | Shape) -> Shape:
    """The event shape that ``features`` stands for: a width, or a shape such as (channels, height, width).

    Raises:
        ConfigError: unless it is a positive integer or a tuple of them.
    """
    shape = tuple(features) if isinstance(features, (tuple, list)) else (features,)
    if not all(is_integer(size) and size >= 1 for size in shape):
        raise ConfigError(f"features must be a positive integer or a tuple of them; got {features!r}.")
    return tuple(int(size) for size in shape)


class Step(NamedTuple):
    """The result of encoding x by one transform, or by several.

    Attributes:
        z: the encoded x, shape ``(*batch, *out_shape)``.
        contribution: the term of the log-likelihood, nats, shape ``batch``; for a bijection log abs det dz/dx.
        residual: squared distance of x to the manifold of decoded points, shape ``batch``; None for other transforms.
        stderr: standard error of the contribution, shape ``batch``; None if it is not random.

    Example:
        >>> import torch, pushforward as pf
        >>> step = pf.transforms.Exp(2).encode(torch.zeros(1, 2))
        >>> step.z, step.contribution
        (tensor([[1., 1.]]), tensor([0.]))
    """

    z: Tensor
    contribution: Tensor
    residual: Tensor | None = None
    stderr: Tensor | None = None

    def then(self, after: Step) -> Step:
        """This step and the next as one: contributions, residuals and squared standard errors are added."""
        residual, stderr = after.residual, after.stderr
        if self.residual is not None:
            residual = self.residual if residual is None else self.residual + residual
        if self.stderr is not None:
            stderr = self.stderr if stderr is None else torch.hypot(self.stderr, stderr)
        return Step(after.z, self.contribution + after.contribution, residual, stderr)


class Transform(nn.Module, ABC):
    """A part of a model between data and base distribution: a bijection, surjection, injection or dequantization.

    A new transform implements two methods: :meth:`encode`, from data x to noise z with the contribution to the log-likelihood,
    and :meth:`decode`, from noise to data. It calls ``super().__init__`` with its shapes, and sets the attributes below whose
    defaults do not fit. All other methods follow from these. Leading dimensions are batch. Chains, models and a call of the
    transform refuse data of another event shape; ``encode`` and ``decode`` of a single transform may not.

    Example:
        >>> import torch, pushforward as pf
        >>> class Shift(pf.transforms.Transform):
        ...     # z = x + 1.
        ...     def encode(self, x, context=None, *, noise=None):
        ...         return pf.transforms.Step(x + 1, x.new_zeros(x.shape[:-1]))
        ...     def decode(self, z, context=None, *, noise=None):
        ...         return z - 1
        >>> chain = pf.transforms.Chain(Shift(2), pf.transforms.Affine(2))
        >>> chain.decode(chain.encode(torch.zeros(1, 2)).z)
        tensor([[0., 0.]])
    """

    in_shape: Shape
    out_shape: Shape
    context: int = 0
    """Width of the context that the transform reads; 0 for none, and then it ignores a context."""
    domain: Support | None = REAL
    """The set of possible data; elsewhere the contribution is -inf. None for transforms that map any box to itself, as a permutation."""
    codomain: Support | None = REAL
    """The set that ``encode`` maps onto. If the rest of the chain has mass elsewhere, the likelihood is a lower bound."""
    kind: Kind = Kind.EXACT
    """How the contribution relates to the true one: exact, a bound, an estimate, ..."""
    autoregressive_order: tuple[int, ...] | str = "mixed"
    """Which coordinates of x a coordinate of z depends on: "any" if on its own alone, the order of an autoregressive transform,
    or "mixed" if there is no order. Transforms that are not "mixed" have :meth:`encode_terms`."""
    valid_on_manifold: bool = False
    """Whether the contribution also holds for a density on a manifold: true for rotations and reflections about 0, and for
    transforms of one manifold, which override :meth:`measure`."""
    many_to_one: bool = False
    """Whether several x have the same z, as when a sign or an order is dropped; ``decode`` draws the missing part."""
    has_rsample: bool = True
    """Whether ``decode`` passes gradients to the distributions that it draws from; not if it draws a sign, an index or an order."""
    angle_preserving: bool = False
    """Whether it stretches all directions at a point equally: dz/dx is exp(contribution / D) times an isometry. Such transforms
    are the parts of :class:`~pushforward.transforms.ConformalEmbedding`."""
    supports_float64: bool = True
    """Whether float64 data stay float64 with float32 weights, so that ``decode`` inverts ``encode`` to float64 rounding. Not if
    decoding evaluates a network at points other than encoding does, as in a sequence or an iteration."""
    encode_passes: int = 1
    """Network passes of one ``encode`` that must run one after the other."""
    decode_passes: int = 1
    """Network passes of one ``decode`` that must run one after the other."""
    index_buffers: tuple[str, ...] = ()
    """Names of integer buffers that together hold each of 0, ..., D - 1 once. A file in which they do not is refused."""

    _counts: bool = False
    """Whether the contribution has no log-determinant, so that it also holds for probabilities of integers."""

    def __init__(self, in_shape: int | Shape, out_shape: int | Shape | None = None) -> None:
        super().__init__()
        self.in_shape = as_shape(in_shape)
        self.out_shape = self.in_shape if out_shape is None else as_shape(out_shape)

    @abstractmethod
    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """Data to noise: x, ``(*batch, *in_shape)``, to a :class:`Step` with z, ``(*batch, *out_shape)``.

        Args:
            x: data.
            context: ``(*batch, context)``, for transforms that read one.
            noise: source of random numbers, for transforms that draw any.
        """

    @abstractmethod
    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Noise to data: z, ``(*batch, *out_shape)``, to x, ``(*batch, *in_shape)``."""

    def decode_with_contribution(
        self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None
    ) -> tuple[Tensor, Tensor]:
        """x = decode(z), and the contribution of ``encode(x)``. Override it if one pass gives both."""
        x = self.decode(z, context, noise=noise)
        return x, require_step(self.encode(x, context, noise=noise), self).contribution

    def invert_with_graph(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Step]:
        """x = decode(z) as a leaf that requires a gradient, and ``encode(x)`` with its graph; reversible chains use it.

        Override it if both can share a network pass.
        """
        with torch.no_grad():
            x = self.decode(z, context)
        x = x.detach().requires_grad_()
        return x, self.encode(x, context)

    def encode_terms(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> tuple[Tensor, Tensor]:
        """z, and the contribution of each coordinate, ``(*batch, *in_shape)``: the terms of the chain rule of probability.

        Raises:
            KindError: if the coordinates depend on each other in no order.
        """
        raise KindError(
            f"{type(self).__name__} has no encode_terms, the contribution of each coordinate: its coordinates depend on "
            "each other in no order, or the class leaves the method out."
        )

    def measure(self, latent: Measure) -> Measure:
        """Measure of the density of x, given the measure of the density of z. Override it in a transform of integers to integers.

        Raises:
            KindError: for a density of z on a manifold, unless the transform is :attr:`valid_on_manifold`; for a probability of
                integers z, unless the transform moves them without a contribution.
        """
        if latent.name == "Manifold" and not self.valid_on_manifold:
            raise KindError(
                f"{type(self).__name__} changes distances, so its log-determinant is wrong for a density on {latent}: use only "
                "rotations and reflections with such a density, or leave this transform out."
            )
        if latent.name == "Counting" and not (self.valid_on_manifold or self._counts):
            raise KindError(
                f"{type(self).__name__} adds a log-determinant, which is wrong for a probability on {latent}: integers have no volume. "
                "Put it after the dequantization, or leave it out."
            )
        return latent

    def map_support(self, box: Support) -> Support | None:
        """A set within the image of ``box`` under ``encode``; None if the image depends on the transform alone (:attr:`codomain`)."""
        return box.reordered(type(self).__name__) if self.domain is None else None

    @property
    def bijective(self) -> bool:
        """Whether ``decode`` inverts ``encode`` and the contribution is the exact log-determinant of a square Jacobian."""
        return (
            self.kind is Kind.EXACT and math.prod(self.in_shape) == math.prod(self.out_shape) and not self.many_to_one
        )

    @property
    def invertible(self) -> bool:
        """Whether ``decode`` inverts ``encode``; the log-determinant may be an estimate."""
        return self.bijective

    @property
    def estimators(self) -> list[Transform]:
        """This transform, or its parts, that offer several ways to compute the log-determinant (``set_log_det``)."""
        return [self] if hasattr(self, "set_log_det") else []

    def initialize(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Set what depends on data (scaling, actnorm) from many training rows, and return their z."""
        return require_step(self.encode(x, context, noise=noise), self).z

    def refresh(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Set statistics that depend on the current weights (batch norm) from training rows, and return their z."""
        return self.encode(x, context, noise=noise).z

    @property
    def needs_refresh(self) -> bool:
        """Whether :meth:`refresh` is needed before evaluation."""
        return False

    @final
    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``encode`` as a plain pair (z, contribution), for ``torch.compile`` and ``torch.export``.

        Raises:
            InputError: for data of another event shape.
        """
        check_event(x, self.in_shape, type(self).__name__)
        step = self.encode(x, context)
        return step.z, step.contribution

    @final
    def batch_shape(self, x: Tensor) -> torch.Size:
        """The leading dimensions of x."""
        return x.shape[: x.dim() - len(self.in_shape)]

    @final
    def zero_log_det(self, x: Tensor) -> Tensor:
        """A contribution of 0 for each row of x."""
        return x.new_zeros(self.batch_shape(x))


def require_step(step: Step, part: Transform) -> Step:
    """What ``encode`` of a transform returned.

    Raises:
        ConfigError: if it is no :class:`Step`, as of a transform of one's own that returns a pair.
    """
    if not isinstance(step, Step):
        raise ConfigError(
            f"{type(part).__name__}.encode must return Step(z, contribution); got a {type(step).__name__}."
        )
    return step


def named(item: object) -> str:
    """What stands where a transform is expected, and what to write if it is a class."""
    return f"the class {item.__name__}: write {item.__name__}(...)" if isinstance(item, type) else type(item).__name__


def check_event(x: Tensor, shape: Shape, owner: str) -> None:
    """Refuse data of another event shape, which broadcasting would often accept without a word.

    Raises:
        InputError: naming the owner and both shapes; for anything but a tensor too.
    """
    if not isinstance(x, Tensor):
        raise InputError(f"{owner} reads a torch tensor; got {type(x).__name__}: write torch.as_tensor(x).")
    if x.shape[x.dim() - len(shape) :] != shape:
        raise InputError(f"{owner} reads data of shape (*batch, {', '.join(map(str, shape))}); got {tuple(x.shape)}.")


def check_context(context: Tensor | None, width: int, owner: str) -> None:
    """Refuse a context that is missing, is not a tensor, or has the wrong width.

    Raises:
        InputError: naming the owner and the width that it needs.
    """
    if width and context is None:
        raise InputError(f"{owner} was built with context={width} and needs a context of shape (*batch, {width}).")
    if width and not isinstance(context, Tensor):
        raise InputError(f"{owner} needs a context that is a torch tensor; got {type(context).__name__}.")
    if width and context is not None and (context.dim() == 0 or context.shape[-1] != width):
        raise InputError(f"{owner} needs a context of width {width}; got shape {tuple(context.shape)}.")


def refuse_batch_statistics(transform: Transform, owner: str) -> None:
    """Refuse a part with batch normalization where nothing sets its statistics from training rows.

    Raises:
        KindError: naming the owner.
    """
    if transform.needs_refresh:
        raise KindError(
            f"{owner} cannot contain batch normalization, because it does not pass training rows on to it: use ActNorm instead."
        )


def within(contribution: Tensor, x: Tensor, support: Support | None, dims: int) -> Tensor:
    """The contribution, with -inf for rows that have a coordinate outside the support; shape ``batch``."""
    if support is None or support == REAL:
        return contribution
    return contribution + outside(x, support, dims)


def outside(x: Tensor, support: Support | None, dims: int) -> Tensor:
    """0 for rows whose coordinates all lie in the support, and -inf for the others; shape ``batch``."""
    if support is None or support == REAL:
        return x.new_zeros(x.shape[: x.dim() - dims])
    inside = support.contains(x).flatten(x.dim() - dims).all(-1) if dims else support.contains(x)
    return torch.where(inside, 0.0, -math.inf).to(x.dtype)
