"""What sits between data and base: the `Transform` interface, its `Step`, and the two ways to combine transforms."""

from __future__ import annotations

import itertools
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple, final

import torch
from torch import Tensor, nn

from pushforward.errors import ConfigError, InputError, KindError, KindWarning
from pushforward.likelihood import REAL, Kind, Measure, Support, join
from pushforward.numerics import Noise, is_eager
from pushforward.registry import register
from pushforward.transforms.reversible import encode_reversibly, require_reversible, reversible_from

__all__ = ["Chain", "Inverse", "Transform", "Shape", "Step", "as_shape"]

Shape = tuple[int, ...]


def as_shape(features: int | Shape) -> Shape:
    """The event shape that a user means by ``features``: a width, or a shape such as (channels, height, width).

    Raises:
        ConfigError: if it is not made of positive integers.
    """
    shape = tuple(features) if isinstance(features, (tuple, list)) else (features,)
    if not all(isinstance(size, int) and not isinstance(size, bool) and size >= 1 for size in shape):
        raise ConfigError(f"features must be a positive integer or a tuple of them; got {features!r}.")
    return shape


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
        if latent.kind == "Manifold" and not self.valid_on_manifold:
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


@register("transforms")
class Chain(Transform):
    """Transforms in order from data to noise.

    The contribution is the sum of the parts' contributions, and the kind is their join; it falls to LOWER_BOUND where a
    part's codomain is not the next part's domain.

    A reversible chain keeps no activations for the backward pass: it finds each part's input again from its output, so
    that memory does not grow with depth (Gomez et al. 2017). It costs an encoding more, and gradients agree to rounding.
    Parts in front that have nothing to train (scaling, dequantization) run as ever.

    Args:
        transforms: at least one; each part's ``out_shape`` is the next part's ``in_shape``.
        reversible: train without keeping activations; gradients of gradients are then refused.

    Raises:
        ConfigError: if shapes do not meet, a part is no transform, or a part of a reversible chain has no exact inverse in one
            pass (autoregressive, residual and continuous transforms, batch normalization, dropout).

    Example:
        >>> import torch
        >>> from pushforward.transforms import Chain, Affine, Tanh
        >>> chain = Chain(Affine(2, scale=0.5), Tanh(2))
        >>> z, contribution = chain(torch.zeros(3, 2))
        >>> contribution.shape
        torch.Size([3])
    """

    def __init__(self, *transforms: Transform, reversible: bool = False) -> None:
        if not transforms:
            raise ConfigError("a chain needs at least one transform.")
        if strangers := [item for item in transforms if not isinstance(item, Transform)]:
            raise ConfigError(f"a chain is made of transforms; got {type(strangers[0]).__name__}.")
        flat: list[Transform] = []
        for item in transforms:
            flat += list(item) if isinstance(item, Chain) else [item]
        for before, after in itertools.pairwise(flat):
            if before.out_shape != after.in_shape:
                raise ConfigError(
                    f"{type(before).__name__} ends with shape {before.out_shape} and {type(after).__name__} starts "
                    f"with {after.in_shape}: the parts of a chain must meet."
                )
        widths = {part.context for part in flat} - {0}
        if len(widths) > 1:
            raise ConfigError(f"the parts of a chain read contexts of different widths: {sorted(widths)}.")
        super().__init__(flat[0].in_shape, flat[-1].out_shape)
        self.transforms = nn.ModuleList(flat)
        self.context = widths.pop() if widths else 0
        self.domain = next((part.domain for part in flat if part.domain is not None), None)
        self.support_kind = Kind.EXACT  # of the parts' supports
        stated = join(*(part.kind for part in flat))
        image: Support | None = None
        for before, part in zip([None, *flat], flat, strict=False):
            carried = None if image is None else part.map_support(image)
            if carried is None and part.domain is not None:
                names = type(before).__name__, type(part).__name__
                self.support_kind |= check_support(image, part.domain, *names, stated | self.support_kind)
                carried = part.codomain
            image = carried
        self.codomain = image
        self.reversible = False
        self.set_reversible(reversible)
        self.encode_passes = max(part.encode_passes for part in flat)
        self.decode_passes = max(part.decode_passes for part in flat)

    @property
    def kind(self) -> Kind:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Join of the parts' kinds, as they are now, and LOWER_BOUND where supports do not meet."""
        exact = Kind.EXACT
        if self.support_kind is exact and all(part.kind is exact for part in self.transforms):
            return exact  # nearly always, and asked for by every log_prob
        return join(self.support_kind, *(part.kind for part in self))

    @property
    def bijective(self) -> bool:
        """Whether every part is, and they meet."""
        return self.kind is Kind.EXACT and all(part.bijective for part in self)

    @property
    def invertible(self) -> bool:
        """Whether every part is, and they meet."""
        return self.support_kind is Kind.EXACT and all(part.invertible for part in self)

    @property
    def estimators(self) -> list[Transform]:
        """Those of every part."""
        return [estimator for part in self for estimator in part.estimators]

    def set_log_det(self, log_det: str) -> None:
        """Let every part that has several ways to its log-determinant find it in this one.

        Raises:
            ConfigError: if no part has, or one does not know this way.
        """
        if not self.estimators:
            raise ConfigError("no part of this chain has more than one way to its log-determinant.")
        for part in self.estimators:
            part.set_log_det(log_det)  # pyright: ignore[reportCallIssue]

    def set_reversible(self, reversible: bool = True) -> None:
        """Choose whether the backward pass finds activations again instead of keeping them.

        Raises:
            ConfigError: if a part has no exact inverse in one pass; it is named.
        """
        if reversible:
            parts = list(self)
            require_reversible(parts[reversible_from(parts) :])
        self.reversible = bool(reversible)

    def __iter__(self) -> Iterator[Transform]:
        return iter(self.transforms)  # pyright: ignore[reportReturnType]

    def __len__(self) -> int:
        return len(self.transforms)

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """Data to noise through every part; contributions, residuals and squared standard errors add."""
        z: Tensor = x
        total: Tensor | None = None
        residual: Tensor | None = None
        variance: Tensor | None = None
        parts = list(self)
        back = reversible_from(parts) if self.reversible and _keeps_graph() else len(parts)
        for part in parts[:back]:
            step = part.encode(z, context, noise=noise)
            z, total = step.z, step.contribution if total is None else total + step.contribution
            if step.residual is not None:
                residual = step.residual if residual is None else residual + step.residual
            if step.stderr is not None:
                variance = step.stderr**2 if variance is None else variance + step.stderr**2
        if back < len(parts):
            z, more = encode_reversibly(parts[back:], z, context)
            total = more if total is None else total + more
        assert total is not None
        return Step(z, total, residual, None if variance is None else variance.sqrt())

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Noise to data through every part, last first."""
        for part in reversed(list(self)):
            z = part.decode(z, context, noise=noise)
        return z

    def decode_with_contribution(
        self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None
    ) -> tuple[Tensor, Tensor]:
        """Noise to data with the sum of the parts' contributions."""
        total = z.new_zeros(z.shape[: z.dim() - len(self.out_shape)])
        for part in reversed(list(self)):
            z, contribution = part.decode_with_contribution(z, context, noise=noise)
            total = total + contribution
        return z, total

    def measure(self, latent: Measure) -> Measure:
        """Measure of the data density, found from the base backwards."""
        for part in reversed(list(self)):
            latent = part.measure(latent)
        return latent

    def initialize(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Initialize each part on what the parts before it make of x."""
        for part in self:
            x = part.initialize(x, context, noise=noise)
        return x

    def refresh(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Refresh each part on what the parts before it make of x."""
        for part in self:
            x = part.refresh(x, context, noise=noise)
        return x

    @property
    def needs_refresh(self) -> bool:
        """Whether any part has statistics to refresh."""
        return any(part.needs_refresh for part in self)


@register("transforms")
class Inverse(Transform):
    """A bijection run backwards: encode is the inner transform's decode.

    Args:
        transform: an EXACT transform whose in and out shapes have equally many coordinates.

    Raises:
        KindError: if the transform is no bijection.

    Example:
        >>> import torch
        >>> from pushforward.transforms import Inverse, Softplus
        >>> log_like = Inverse(Softplus(1))          # positive data to the reals
        >>> log_like.encode(torch.tensor([[1.0]])).z
        tensor([[0.5413]])
    """

    def __init__(self, transform: Transform) -> None:
        if not isinstance(transform, Transform):
            raise ConfigError(f"Inverse runs a transform backwards; got {type(transform).__name__}.")
        if not transform.bijective:
            raise KindError(f"{type(transform).__name__} is not a bijection, so it cannot be run backwards.")
        super().__init__(transform.out_shape, transform.in_shape)
        self.transform = transform
        self.context = transform.context
        self.domain, self.codomain = transform.codomain, transform.domain
        self.valid_on_manifold, self.angle_preserving = transform.valid_on_manifold, transform.angle_preserving
        self.encode_passes, self.decode_passes = transform.decode_passes, transform.encode_passes

    def measure(self, latent: Measure) -> Measure:
        """Unchanged, where the inner transform takes it."""
        self.transform.measure(latent)
        return super().measure(latent)

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """The inner transform's decode, with the contribution negated."""
        z, contribution = self.transform.decode_with_contribution(x, context, noise=noise)
        return Step(z, outside(x, self.domain, len(self.in_shape)) - contribution)

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """The inner transform's encode."""
        return self.transform.encode(z, context, noise=noise).z

    def decode_with_contribution(
        self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None
    ) -> tuple[Tensor, Tensor]:
        """The inner transform's encode, with the contribution negated."""
        step = self.transform.encode(z, context, noise=noise)
        return step.z, -step.contribution


def check_support(image: Support | None, mass: Support, before: str, after: str, stated: Kind) -> Kind:
    """EXACT if the latent mass lies where the transforms before it land; else LOWER_BOUND.

    A warning names the pair where that weakens what is ``stated`` already; a bound, as after dequantization, is one anyway.
    """
    if image is None or image.covers(mass):
        return Kind.EXACT
    if stated | Kind.LOWER_BOUND is not stated:
        warnings.warn(
            f"{before} lands in {image} but {after} has mass on {mass}, so some mass belongs to no data point: the "
            "likelihood is a lower bound.",
            KindWarning,
            stacklevel=3,
        )
    return Kind.LOWER_BOUND


def _size(shape: Shape) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


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


def _keeps_graph() -> bool:
    return torch.is_grad_enabled() and is_eager()


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
