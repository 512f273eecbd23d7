"""What sits between data and base: the `Map` interface, its `Step`, and the two ways to combine maps."""

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
from pushforward.maps.reversible import encode_reversibly, require_reversible, reversible_from
from pushforward.measure import REAL, Measure, Relation, Support, join
from pushforward.numerics import Noise, eager
from pushforward.registry import register

__all__ = ["Chain", "Inverse", "Map", "Shape", "Step", "as_shape"]

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
    """One step from data towards noise.

    Attributes:
        z: what the map made of x, shape ``(*batch, *out_shape)``.
        contribution: what it adds to the log-likelihood, nats, shape ``batch``; for a bijection log abs det dz/dx.
        residual: squared distance of x to the map's image, shape ``batch``, for maps onto a manifold.
        stderr: standard error of the contribution, shape ``batch``, for stochastic contributions.
    """

    z: Tensor
    contribution: Tensor
    residual: Tensor | None = None
    stderr: Tensor | None = None


class Map(nn.Module, ABC):
    """Everything that sits between data and base: bijections, surjections, dequantisation, injections.

    A new map sets ``in_shape`` (and ``out_shape``, ``context``, ``domain``, ``codomain``, ``relation`` where the
    defaults do not fit) and writes two methods: :meth:`encode`, from data towards noise with its contribution to the
    log-likelihood, and :meth:`decode`, from noise towards data. All else is derived. Leading dimensions are batch.

    Contributions exist in one direction only, data to noise.
    """

    in_shape: Shape
    out_shape: Shape
    context: int = 0
    """Width of the context that the map reads; 0 for none. Maps without one ignore a context."""
    domain: Support | None = REAL
    """Where data may lie (outside, the contribution is -inf); None for maps that keep any box, as a permutation."""
    codomain: Support | None = REAL
    """Where ``encode`` lands. The rest of the chain must have its mass there, else the likelihood is a lower bound."""
    relation: Relation = Relation.EXACT
    """What the contribution is of the true one."""
    places: tuple[int, ...] | str = "mixed"
    """How coordinates depend on each other: "any" (each on itself alone), the order of an autoregressive map, or "mixed"
    (no order). Maps that are not "mixed" have :meth:`encode_terms`."""
    keeps_surfaces: bool = False
    """Whether the contribution is also right for a density on a surface: for maps that keep all lengths and leave 0 where it is
    (so a sphere about 0 is still one), and, with a :meth:`measure` of their own, maps made for one surface."""
    drops: bool = False
    """Whether several x of one size have the same z, as where a sign or an order is dropped; ``decode`` draws it anew."""
    has_rsample: bool = True
    """Whether ``decode`` carries gradients to the law of all that it draws; not where that is a sign, a place or an order."""
    conformal: bool = False
    """Whether it stretches all directions at a point alike, so that dx -> dz is exp(contribution / coordinates) times an
    isometry: what :class:`~pushforward.maps.ConformalEmbedding` is made of. Isometries are, with a contribution of 0."""
    wide: bool = True
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

    def undo(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Step]:
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
            KindError: for maps that mix coordinates in no order.
        """
        raise KindError(f"{type(self).__name__} mixes coordinates in no order, so its contribution has no terms.")

    def measure(self, latent: Measure) -> Measure:
        """Measure of the data density, given the measure of the latent density.

        Raises:
            KindError: for a latent density on a surface, which a map that stretches space would stretch otherwise.
        """
        if latent.kind == "Manifold" and not self.keeps_surfaces:
            raise KindError(
                f"{type(self).__name__} stretches space, and its log-determinant is not that of a surface, so the density on "
                f"{latent} behind it would be wrong: put maps that keep lengths there, or leave it out."
            )
        return latent

    def carry(self, box: Support) -> Support | None:
        """A box that this map makes of a box, at most as large as what it reaches from there; None if it makes none."""
        return box.seen_through(type(self).__name__) if self.domain is None else None

    @property
    def bijective(self) -> bool:
        """Whether ``decode`` undoes ``encode`` and the contribution is the log-determinant of a square Jacobian."""
        return self.relation is Relation.EXACT and _size(self.in_shape) == _size(self.out_shape) and not self.drops

    @property
    def invertible(self) -> bool:
        """Whether ``decode`` undoes ``encode``, even where the log-determinant is only estimated."""
        return self.bijective

    @property
    def estimators(self) -> list[Map]:
        """The maps in this one, or itself, that have several ways to their log-determinant (``set_log_det``)."""
        return [self] if hasattr(self, "set_log_det") else []

    def initialize(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Set state that depends on data (scaling, actnorm) from many training rows, and return their z."""
        return self.encode(x, context, noise=noise).z

    def refresh(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Set statistics that must belong to the current weights (batch norm) from the training rows; return z."""
        return self.encode(x, context, noise=noise).z

    @property
    def statistics(self) -> bool:
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
    def no_volume(self, x: Tensor) -> Tensor:
        """A contribution of zero for data ``x``."""
        return x.new_zeros(self.batch_shape(x))


@register("maps")
class Chain(Map):
    """Maps in order from data to noise.

    The contribution is the sum of the parts' contributions, and the relation is their join; it falls to LOWER where a
    part's codomain is not the next part's domain.

    A reversible chain keeps no activations for the backward pass: it finds each part's input again from its output, so
    that memory does not grow with depth (Gomez et al. 2017). It costs an encoding more, and gradients agree to rounding.
    Parts in front that have nothing to train (scaling, dequantisation) run as ever.

    Args:
        maps: at least one; each part's ``out_shape`` is the next part's ``in_shape``.
        reversible: train without keeping activations; gradients of gradients are then refused.

    Raises:
        ConfigError: if shapes do not meet, a part is no map, or a part of a reversible chain has no exact inverse in one
            pass (autoregressive, residual and continuous maps, batch normalisation, dropout).

    Example:
        >>> import torch
        >>> from pushforward.maps import Chain, Affine, Tanh
        >>> chain = Chain(Affine(2, scale=0.5), Tanh(2))
        >>> z, contribution = chain(torch.zeros(3, 2))
        >>> contribution.shape
        torch.Size([3])
    """

    def __init__(self, *maps: Map, reversible: bool = False) -> None:
        if not maps:
            raise ConfigError("a chain needs at least one map.")
        if strangers := [item for item in maps if not isinstance(item, Map)]:
            raise ConfigError(f"a chain is made of maps; got {type(strangers[0]).__name__}.")
        flat: list[Map] = []
        for item in maps:
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
        self.maps = nn.ModuleList(flat)
        self.context = widths.pop() if widths else 0
        self.domain = next((part.domain for part in flat if part.domain is not None), None)
        self.meeting = Relation.EXACT  # of the parts' supports
        stated = join(*(part.relation for part in flat))
        image: Support | None = None
        for before, part in zip([None, *flat], flat, strict=False):
            carried = None if image is None else part.carry(image)
            if carried is None and part.domain is not None:
                names = type(before).__name__, type(part).__name__
                self.meeting |= right_inverse(image, part.domain, *names, stated | self.meeting)
                carried = part.codomain
            image = carried
        self.codomain = image
        self.reversible = False
        self.set_reversible(reversible)
        self.encode_passes = max(part.encode_passes for part in flat)
        self.decode_passes = max(part.decode_passes for part in flat)

    @property
    def relation(self) -> Relation:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Join of the parts' relations, as they are now, and LOWER where supports do not meet."""
        exact = Relation.EXACT
        if self.meeting is exact and all(part.relation is exact for part in self.maps):
            return exact  # nearly always, and asked for by every log_prob
        return join(self.meeting, *(part.relation for part in self))

    @property
    def bijective(self) -> bool:
        """Whether every part is, and they meet."""
        return self.relation is Relation.EXACT and all(part.bijective for part in self)

    @property
    def invertible(self) -> bool:
        """Whether every part is, and they meet."""
        return self.meeting is Relation.EXACT and all(part.invertible for part in self)

    @property
    def estimators(self) -> list[Map]:
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

    def __iter__(self) -> Iterator[Map]:
        return iter(self.maps)  # pyright: ignore[reportReturnType]

    def __len__(self) -> int:
        return len(self.maps)

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
    def statistics(self) -> bool:
        """Whether any part has statistics to refresh."""
        return any(part.statistics for part in self)


@register("maps")
class Inverse(Map):
    """A bijection run backwards: encode is the inner map's decode.

    Args:
        map: an EXACT map whose in and out shapes have equally many coordinates.

    Raises:
        KindError: if the map is no bijection.

    Example:
        >>> import torch
        >>> from pushforward.maps import Inverse, Softplus
        >>> log_like = Inverse(Softplus(1))          # positive data to the reals
        >>> log_like.encode(torch.tensor([[1.0]])).z
        tensor([[0.5413]])
    """

    def __init__(self, map: Map) -> None:
        if not isinstance(map, Map):
            raise ConfigError(f"Inverse runs a map backwards; got {type(map).__name__}.")
        if not map.bijective:
            raise KindError(f"{type(map).__name__} is not a bijection, so it cannot be run backwards.")
        super().__init__(map.out_shape, map.in_shape)
        self.map = map
        self.context = map.context
        self.domain, self.codomain = map.codomain, map.domain
        self.keeps_surfaces, self.conformal = map.keeps_surfaces, map.conformal
        self.encode_passes, self.decode_passes = map.decode_passes, map.encode_passes

    def measure(self, latent: Measure) -> Measure:
        """Unchanged, where the inner map takes it."""
        self.map.measure(latent)
        return super().measure(latent)

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """The inner map's decode, with the contribution negated."""
        z, contribution = self.map.decode_with_contribution(x, context, noise=noise)
        return Step(z, outside(x, self.domain, len(self.in_shape)) - contribution)

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """The inner map's encode."""
        return self.map.encode(z, context, noise=noise).z

    def decode_with_contribution(
        self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None
    ) -> tuple[Tensor, Tensor]:
        """The inner map's encode, with the contribution negated."""
        step = self.map.encode(z, context, noise=noise)
        return step.z, -step.contribution


def right_inverse(image: Support | None, mass: Support, before: str, after: str, stated: Relation) -> Relation:
    """EXACT if the latent mass lies where the maps before it land; else LOWER.

    A warning names the pair where that weakens what is ``stated`` already; a bound, as after dequantisation, is one anyway.
    """
    if image is None or image.covers(mass):
        return Relation.EXACT
    if stated | Relation.LOWER is not stated:
        warnings.warn(
            f"{before} lands in {image} but {after} has mass on {mass}, so some mass belongs to no data point: the "
            "likelihood is a lower bound.",
            KindWarning,
            stacklevel=3,
        )
    return Relation.LOWER


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
    return torch.is_grad_enabled() and eager()


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
